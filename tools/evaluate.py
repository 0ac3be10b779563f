"""The same as `detect evaluate`."""

import sys

from detect.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
