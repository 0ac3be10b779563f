"""The same as `detect infer`."""

import sys

from detect.cli import main

if __name__ == "__main__":
    main(["infer", *sys.argv[1:]])
