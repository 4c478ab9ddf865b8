"""This kernel: its types, symbols, mounts and control groups, and what it can do for programs."""
