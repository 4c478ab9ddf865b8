"""The publisher and its outputs: merges batches by time, folds findings, and keeps the counters of every sink."""
