"""What a signature in Python imports: `from headrace.signature import Event, Signature` (docs/reference/signatures.md).

Stable: what is here keeps its meaning within a major version, and what goes is announced one release before.
"""

from headrace.workers.detect.code.signature import Batch, Event, Result, Signature, State

__all__ = ["Batch", "Event", "Result", "Signature", "State"]
