"""Conditions of outputs on rows, and which of them, and of signatures, the kernel side can decide."""
