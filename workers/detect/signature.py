"""The name by which signatures in Python import what they are written against (workers/detect/code/signature.py)."""

from workers.detect.code.signature import Batch, Event, Result, Signature, State

__all__ = ["Batch", "Event", "Result", "Signature", "State"]
