"""SHA-256 of executables, from the table that the hasher maintains (pipeline/containers/hashes.py).

Before a turn is rendered, the worker requests the hashes that it needs and waits for them. It waits at most WAIT_S
per turn and at most a tenth of the time in the long run, so a flood of new files cannot stall a worker. A hash that is
not known by then is reported as `pending`.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

import numpy as np

from headrace.bpf.layout import EVENTS
from headrace.bpf.tables.catalogue import Catalogue
from headrace.workers.decode.texts import Texts
from headrace.workers.records.blobs import argument, blobs
from headrace.workers.records.rows import Contexts, Rows

Array = np.ndarray[Any, Any]
Key = tuple[int, int, int]
"""(device, inode, ctime in nanoseconds)"""
EVENT = "sched_process_exec"
WAIT_S = 0.1
POLL_S = 0.001
SHARE = 0.1
PENDING, NO_FILE = "pending", "no object"


class KnownExecutables(Protocol):
    """Interface of the hasher."""

    def look(self, key: Key) -> tuple[bytes, str] | None:
        """(digest, reason if there is none) of a file; None if it is not known yet."""

    def ask(self, key: Key, pid: int, path: bytes) -> None:
        """Request the hash of `path`, a file that process `pid` ran. Does not wait."""


class Executables:
    """Hash lookup of one worker."""

    def __init__(self, catalogue: Catalogue, known: KnownExecutables) -> None:
        event = catalogue.by_name[EVENT]
        self._event = event.id
        self._columns = [index for name in ("dev", "inode", "ctime") if (index := event.index(name)) is not None]
        path = event.index("pathname")
        assert path is not None
        self._path = Texts(event, path)
        self._known = known
        self._counts = np.zeros(EVENTS, np.uint8)
        self._counts[event.id] = event.cells
        self._credit_s, self._credited = WAIT_S, time.monotonic()
        """Remaining wait time in seconds, and the time at which it was computed."""

    def prepare(self, rows: Rows, contexts: Contexts) -> None:
        """Request the hashes of all exec rows, and wait for them within the limits."""
        chosen = np.flatnonzero(rows.event == self._event)
        if not len(chosen):
            return
        position = dict(zip(self.keys(rows, chosen), chosen.tolist(), strict=True))
        missing = [key for key in position if key[1] and self._known.look(key) is None]
        if not missing:
            return
        rows = rows.select(np.array([position[key] for key in missing]))
        pids = contexts.table["tgid"][rows.who].tolist()
        texts = self._path.read(rows, np.arange(len(rows)), blobs(rows, self._counts))
        for key, pid, text in zip(missing, pids, texts, strict=True):
            self._known.ask(key, pid, text.known or b"")
        self._wait(missing)

    def _wait(self, missing: list[Key]) -> None:
        began = time.monotonic()
        credit_s = min(WAIT_S, self._credit_s + SHARE * (began - self._credited))
        now = began
        while missing and now - began < credit_s:
            time.sleep(POLL_S)
            missing = [key for key in missing if self._known.look(key) is None]
            now = time.monotonic()
        self._credit_s, self._credited = credit_s - (now - began), now

    def keys(self, rows: Rows, chosen: Array) -> list[Key]:
        """File keys of the chosen rows, all of the exec event."""
        device, inode, ctime = (argument(rows, index, chosen).tolist() for index in self._columns)
        return list(zip(device, inode, ctime, strict=True))

    def shown(self, key: Key) -> tuple[bytes, str]:
        """(digest, reason if there is none)."""
        if not key[1]:
            return b"", NO_FILE
        return self._known.look(key) or (b"", PENDING)
