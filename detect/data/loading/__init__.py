"""From a data set to batches: augmentation, transforms, crops, caches."""
