"""The same as `detect train`."""

import sys

from detect.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
