"""Benchmarks of rules and detection in one process."""
