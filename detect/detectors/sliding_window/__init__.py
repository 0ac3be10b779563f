"""The sliding window as convolutions."""

from detect.detectors.sliding_window.detector import SlidingWindow
