"""What the benchmarks share: the harness, the counting subscriber, loads and recordings."""
