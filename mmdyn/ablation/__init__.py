"""Fair comparisons of configs: runs of several seeds, what they scored, and one report."""
