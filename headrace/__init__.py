"""headrace: runtime security and tracing for Linux hosts.

For programs and notebooks:

- `Subscriber`, `AsyncSubscriber`: events and findings of a running headrace, over ZeroMQ
- `open`: what a recording holds, as dictionaries, numpy arrays, Arrow tables or polars data frames
- `trace`: run headrace, and iterate over what it sees
- `headrace.signature`: what a signature in Python imports
- `by_event`: an Arrow table of events as one table for each event, with a column for each argument
- `Gap`, `Message`, `EventBatch`, `Recording`, `Run`: what these give; `Error`, `ProtocolError`, `RefusedError`: what
  they raise

Stable: these names keep their meaning within a major version. What is to go is announced one release before, with a
warning. All other modules below `headrace` are internal, and change without notice: the rooms of the engine, which are
links to the folders beside this one, so that a checkout and an installed package have the same names.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.pipeline.api.columns import by_event
    from headrace.pipeline.api.errors import Error, ProtocolError, RefusedError
    from headrace.pipeline.api.messages import Gap, Message
    from headrace.pipeline.api.recording import EventBatch, Recording
    from headrace.pipeline.api.recording import open_recording as open
    from headrace.pipeline.api.subscriber import AsyncSubscriber, Subscriber
    from headrace.pipeline.api.tracing import Run, trace

__version__ = "0.1.0"
__all__ = [
    "AsyncSubscriber",
    "Error",
    "EventBatch",
    "Gap",
    "Message",
    "ProtocolError",
    "Recording",
    "RefusedError",
    "Run",
    "Subscriber",
    "by_event",
    "open",
    "trace",
]
_MODULES = {
    "columns": ("by_event",),
    "errors": ("Error", "ProtocolError", "RefusedError"),
    "messages": ("Gap", "Message"),
    "recording": ("EventBatch", "Recording", "open"),
    "subscriber": ("AsyncSubscriber", "Subscriber"),
    "tracing": ("Run", "trace"),
}


def __getattr__(name: str) -> Any:
    """Each is imported when it is first used: the command line does not need them."""
    for module, names in _MODULES.items():
        if name in names:
            found = importlib.import_module(f"headrace.pipeline.api.{module}")
            return getattr(found, "open_recording" if name == "open" else name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
