"""The running kernel: types, symbols, mounts, control groups, and features available to programs."""
