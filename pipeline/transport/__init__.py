"""Bytes between processes: shared memory, rings, perf rings, frames, watermarks, clocks. No record is read here."""
