"""Analyses of what was judged: kinds of errors, curves, calibration, significance."""
