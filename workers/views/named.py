"""Arguments that come from the runtime of the container that an event is about, not from a record
(`container_create`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from headrace.bpf.tables.catalogue import Event
from headrace.config.runtimes import RuntimeAnswer
from headrace.workers.decode.texts import Texts
from headrace.workers.records.blobs import Blobs
from headrace.workers.records.rows import Rows
from headrace.workers.views.store import Cache, Store
from headrace.workers.views.style import Style, Value

Array = np.ndarray[Any, Any]
Named = Callable[[bytes, bytes], RuntimeAnswer | None]
"""Returns what is known of a container, by the text of its id and its runtime; None if the run asks no runtime."""
SOURCE = "runtime"
FIELDS = {
    "container_image": "image",
    "container_name": "name",
    "pod_name": "pod",
    "pod_namespace": "namespace",
    "pod_uid": "pod_uid",
}
"""Arguments, and the Info attribute that holds each."""


def unasked(name: bytes, runtime: bytes) -> RuntimeAnswer | None:
    """The Named of a run that asks no runtime."""
    return None


class NamedPieces:
    """Pieces of one argument of one event (like ArgumentPieces of views/pieces.py)."""

    def __init__(
        self, event: Event, index: int, style: Style, store: Store, position: int, last: bool, named: Named
    ) -> None:
        ids, runtimes = event.index("container_id"), event.index("runtime")
        assert ids is not None
        assert runtimes is not None
        self.argument, self.index, self._event = event.arguments[index], index, event
        self._ids, self._runtimes = Texts(event, ids), Texts(event, runtimes)
        self._position = position
        self._style, self._end, self._named = style, style.end if last else "", named
        self._pieces = Cache(store, self._piece)

    def render(self, rows: Rows, chosen: Array, found: Blobs) -> Array:
        """The piece number for each chosen row."""
        ids, runtimes = (texts.known(rows, chosen, found) for texts in (self._ids, self._runtimes))
        return self._pieces.numbers_of([self._said(*each) for each in zip(ids, runtimes, strict=True)])

    def _said(self, name: bytes | None, runtime: bytes | None) -> tuple[str, str]:
        """(value, reason why it is missing)."""
        answer = self._named(name, runtime or b"") if name else None
        if answer is None:
            return "", "not read"
        info = answer.known
        return (getattr(info, FIELDS[self.argument.name]), "") if info else ("", answer.word)

    def _piece(self, said: tuple[str, str]) -> str:
        value, reason = said
        shown = Value(None, reason=reason) if reason else Value(value.encode(), source=SOURCE)
        return self._style.argument(self._event, self.argument, self._position, shown) + self._end
