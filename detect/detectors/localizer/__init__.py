"""Localization by regression."""

from detect.detectors.localizer.detector import Localizer

__all__ = ["Localizer"]
