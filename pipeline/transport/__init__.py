"""Byte transport between processes: shared memory, rings, perf rings, frames, watermarks, clocks.

This package does not parse records.
"""
