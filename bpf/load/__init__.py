"""Loads, attaches and controls the BPF programs, and enters processes that already run in their maps."""
