"""Training, evaluation and inference from a config: the one place that joins all. Floor 4."""
