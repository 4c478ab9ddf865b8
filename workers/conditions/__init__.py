"""Output conditions on rows, and the choice of conditions (of outputs and signatures) that BPF programs decide."""
