"""Evaluators of other tasks than detection: localization, pose, classification."""
