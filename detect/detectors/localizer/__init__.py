"""Localization by regression."""

from detect.detectors.localizer.detector import Localizer
