"""Benchmarks of rules, signatures and findings."""
