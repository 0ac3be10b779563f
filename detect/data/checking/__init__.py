"""The checker of data sets: what is faulty, and what is suspicious though no single file is."""
