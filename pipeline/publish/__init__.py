"""The publisher and its outputs: it merges batches by time, folds findings, and keeps the books of every sink."""
