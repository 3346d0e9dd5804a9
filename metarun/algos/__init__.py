"""Meta-learning algorithms, a file for each, all written for a single task."""
