"""Fair comparisons of configs: runs with several seeds, their results, and one report."""
