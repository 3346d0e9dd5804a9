"""Meta-learning algorithms, one file each, every one written for a single task."""
