"""The container table in shared memory, which workers read, and the pipe through which they send requests.

    worker --request--> pipe --> enricher --> table --> every worker        (pipeline/containers/enricher.py)

A worker never waits. A container that is not in the table yet is `pending`, and the worker requests it.

    head (128 bytes):   changes u64 | counters, see HEAD
    entry (2 KiB):      sequence u64 | key: word u8[8], id u8[32] | since_ns u64 | written_ns u64
                        | state u16 | runtime u16 | bytes u32 | data u8[1976]

The enricher is the only writer. `sequence` is odd while it writes an entry; a reader that sees the same even number
before and after has a consistent entry. `changes` increases after every change; until then readers can use cached
answers. A key is a word (CONTAINER, USER or GROUP) and an id or a number. `since_ns` is when a key was first requested
or, once there is an answer, when the first answer arrived; later answers do not change it. The data is an encoded Info.
When the enricher dies, its successor continues with the same table. An entry that was half written at that moment keeps
an odd sequence until it is written again; readers treat it as missing.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from headrace.bpf.layout import RUNTIMES
from headrace.config.runtimes import FREE, PENDING, STATES, Info, RuntimeAnswer
from headrace.pipeline.transport.clock import boottime_ns
from headrace.pipeline.transport.doorbell import AGAIN_S, InheritedFd, Questions
from headrace.pipeline.transport.shm import Array, Segment

ID_BYTES = 32
KEY_BYTES, DATA_BYTES = 8 + ID_BYTES, 1976
COUNTERS = ("asked", "answered", "timeouts", "failures", "retries", "evicted", "oldest_pending_ns")
"""Requests to runtimes and their outcomes, evicted entries, and since when the oldest pending entry has been pending
(CLOCK_MONOTONIC; 0 if none is pending)."""
HEAD = np.dtype([("changes", "<u8"), *((name, "<u8") for name in COUNTERS), ("pad", "<u8", 8)])
ENTRY = np.dtype(
    [
        ("sequence", "<u8"),
        ("key", "u1", KEY_BYTES),
        ("since_ns", "<u8"),
        ("written_ns", "<u8"),
        ("state", "<u2"),
        ("runtime", "<u2"),
        ("bytes", "<u4"),
        ("data", "u1", DATA_BYTES),
    ]
)
ENTRIES, PROBES = 4096, 16
REQUEST_BYTES = KEY_BYTES + 1
"""A request is the key and the kernel's number of the runtime (RUNTIMES in bpf/layout.py)."""
CONTAINER, USER, GROUP = b"containr", b"user\0\0\0\0", b"group\0\0\0"
ACCOUNTS = 255
"""Replaces the runtime number if the key is that of a user or group (pipeline/containers/accounts.py)."""
ACCOUNT = struct.Struct("<8sI28s")
"""Key of a user or group: word, number, padding."""
MAX_ASKED = 1 << 16
MAX_UNANSWERED = 1024
TRIES = 100


NOTHING_YET = RuntimeAnswer()


def container_key(name: bytes) -> bytes:
    """The key of a container, from the 32 bytes of its id."""
    return CONTAINER + name


def key_of(name: str) -> bytes:
    """The key of a container, from the hex digits of its id; b"" if they are not a valid id."""
    try:
        found = bytes.fromhex(name)
    except ValueError:
        return b""
    return container_key(found) if len(found) == ID_BYTES and found.hex() == name else b""


class ContainerTable:
    """The table in its segment."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment  # the views do not keep it alive
        self.head: Array = segment.array(HEAD, 1)
        self.entries: Array = segment.array(ENTRY, ENTRIES, HEAD.itemsize)
        # one u64 per entry, read with a single load
        self._sequences = self.entries["sequence"]

    @staticmethod
    def size() -> int:
        """Size of the segment in bytes."""
        return HEAD.itemsize + ENTRY.itemsize * ENTRIES

    @property
    def changes(self) -> int:
        """Counter that increases with every change."""
        return int(self.head["changes"][0])

    def places(self, key: bytes) -> Iterator[int]:
        """Possible places of a key. The same in every process."""
        first = zlib.crc32(key)
        return ((first + i) % ENTRIES for i in range(PROBES))

    def get(self, key: bytes) -> RuntimeAnswer | None:
        """The entry of a container; None if it is not in the table."""
        for place in self.places(key):
            entry = self.entries[place]
            for _ in range(TRIES):
                sequence = int(self._sequences[place])
                if sequence % 2:
                    continue
                if int(entry["state"]) == FREE or entry["key"].tobytes() != key:
                    break
                state, since_ns = int(entry["state"]), int(entry["since_ns"])
                data = entry["data"][: int(entry["bytes"])].tobytes()
                if int(self._sequences[place]) == sequence:
                    return RuntimeAnswer(state, msgspec.msgpack.decode(data, type=Info), since_ns)
        return None

    def states(self) -> dict[str, int]:
        """Number of containers per state."""
        of_containers = (self.entries["key"][:, : len(CONTAINER)] == np.frombuffer(CONTAINER, "u1")).all(axis=1)
        counts = np.bincount(self.entries["state"][of_containers], minlength=len(STATES))[: len(STATES)]
        return {name: int(n) for name, n in zip(STATES[1:], counts[1:], strict=True)}

    def counters(self) -> dict[str, int]:
        """The counters of the head, with the age of the oldest pending entry in milliseconds."""
        found = {name: int(self.head[name][0]) for name in COUNTERS}
        since_ns = found.pop("oldest_pending_ns")
        found["oldest_pending_ms"] = (time.monotonic_ns() - since_ns) // 10**6 if since_ns else 0
        return found

    # -- called only by the enricher

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter."""
        self.head[name] += np.uint64(by)

    def put(self, key: bytes, state: int, info: Info, runtime: int = 0) -> None:
        """Add or update a container. Does nothing if the entry is unchanged.

        If all places of the key are taken, evicts the entry that was written longest ago. `runtime` is stored for a
        successor of this enricher.
        """
        places = list(self.places(key))
        free = [p for p in places if self.entries[p]["state"] == FREE]
        place, data, since_ns = self._place_of(key), encoded(info), boottime_ns()
        if place is None:
            if not free:
                self.count("evicted")
                free = [min(places, key=lambda p: int(self.entries[p]["written_ns"]))]
            place = free[0]
        else:
            entry = self.entries[place]
            is_same = entry["state"] == state and entry["data"][: int(entry["bytes"])].tobytes() == data
            if is_same and entry["sequence"] % 2 == 0:
                return
            if PENDING not in (entry["state"], state):
                since_ns = int(entry["since_ns"])
        self._write(place, key, state, data, since_ns, runtime)

    def remove(self, key: bytes) -> None:
        """Remove a container."""
        place = self._place_of(key)
        if place is not None:
            self._write(place, bytes(KEY_BYTES), FREE, b"", 0, 0)

    def _place_of(self, key: bytes) -> int | None:
        taken = (p for p in self.places(key) if self.entries[p]["state"] != FREE)
        return next((p for p in taken if self.entries[p]["key"].tobytes() == key), None)

    def change(self) -> None:
        """Increase `changes`, so that all workers read the table again."""
        self.head["changes"] += np.uint64(1)

    def _write(self, place: int, key: bytes, state: int, data: bytes, since_ns: int, runtime: int) -> None:
        entry = self.entries[place]
        entry["sequence"] |= np.uint64(1)
        entry["key"] = np.frombuffer(key, "u1")
        entry["state"], entry["runtime"], entry["bytes"] = state, runtime, len(data)
        entry["since_ns"], entry["written_ns"] = since_ns, boottime_ns()
        entry["data"][: len(data)] = np.frombuffer(data, "u1")
        entry["sequence"] += np.uint64(1)
        self.change()


def encoded(info: Info) -> bytes:
    """Encode an Info in at most DATA_BYTES: drops labels first, then truncates texts, and sets `cut`."""
    data = msgspec.msgpack.encode(info)
    if len(data) > DATA_BYTES:
        data = msgspec.msgpack.encode(msgspec.structs.replace(info, labels={}, cut=True))
    length = 1024
    while len(data) > DATA_BYTES:
        length //= 2
        texts = {name: getattr(info, name).encode()[:length].decode("utf-8", "ignore") for name in TEXTS}
        data = msgspec.msgpack.encode(Info(**texts, cut=True))
    return data


TEXTS = ("name", "image", "digest", "pod", "namespace", "pod_uid", "reason")


class ContainerClient:
    """A worker's access to the table and the request pipe. Caches answers until the table changes."""

    def __init__(self, segment: str, requests: InheritedFd) -> None:
        self._table = ContainerTable(Segment(name=segment))
        self._questions = Questions(requests, MAX_ASKED)
        self._known: dict[bytes, RuntimeAnswer] = {}
        self._changes = 0
        self._unanswered: dict[bytes, int] = {}
        """Requested keys that are not in the table yet, with their runtime. A request may get lost and is repeated."""
        self._again_s = 0.0

    def changed(self) -> bool:
        """Whether the table has changed since the last call. Also repeats unanswered requests."""
        self._ask_again()
        changes = self._table.changes
        if changes == self._changes:
            return False
        self._changes = changes
        self._known.clear()
        return True

    def _ask_again(self) -> None:
        now_s = time.monotonic()
        if not self._unanswered or now_s < self._again_s:
            return
        self._again_s = now_s + AGAIN_S
        for key, runtime in list(self._unanswered.items()):
            if self._table.get(key) is None:
                self._questions.ask(key, key + bytes([runtime]))
            else:
                del self._unanswered[key]

    def of(self, context: Any) -> RuntimeAnswer:
        """The answer for the container of a context (a CONTEXT scalar, bpf/layout.py)."""
        return self.look(container_key(context["container"].tobytes()), int(context["runtime"]))

    def named(self, name: bytes, runtime: bytes) -> RuntimeAnswer | None:
        """The answer for a container, by the texts of its id and runtime; None if the id is invalid."""
        key, shown = key_of(name.decode("utf-8", "replace")), runtime.decode("utf-8", "replace")
        return self.look(key, RUNTIMES.index(shown) if shown in RUNTIMES else 0) if key else None

    def user(self, number: int) -> str:
        """The name of a user; "" if there is none or it is not known yet."""
        return self._account(USER, number)

    def group(self, number: int) -> str:
        """The name of a group; "" if there is none or it is not known yet."""
        return self._account(GROUP, number)

    def _account(self, word: bytes, number: int) -> str:
        known = self.look(ACCOUNT.pack(word, number, b""), ACCOUNTS).known
        return known.name if known else ""

    def look(self, key: bytes, runtime: int) -> RuntimeAnswer:
        """The answer for a key. Requests it if it is not in the table. Never waits."""
        found = self._known.get(key)
        if found is None:
            found = self._table.get(key)
            if found is None:
                self._questions.ask(key, key + bytes([runtime]))
                if len(self._unanswered) >= MAX_UNANSWERED:
                    self._unanswered.clear()
                self._unanswered[key] = runtime
                return NOTHING_YET
            self._known[key] = found
        return found


def client(segment: str, requests: InheritedFd | None) -> ContainerClient | None:
    """A worker's client; None if enrichment is disabled in this run."""
    return ContainerClient(segment, requests) if requests else None


def requests(fd: int) -> Iterator[tuple[bytes, int]]:
    """Yield (key, runtime) of each request in the pipe."""
    while True:
        try:
            data = os.read(fd, REQUEST_BYTES)
        except BlockingIOError:
            return
        if len(data) < REQUEST_BYTES:
            return
        yield data[:KEY_BYTES], data[KEY_BYTES]
