"""DataFrames in, results out: comparisons, groups, digests and plots of what a store holds."""
