"""BPF programs: selection, source, constants, and compilation to instructions."""
