"""Process information in JSON lines: the image of a process, its ancestors and their images.

Signatures read it from the process tree (workers/enrich/tree.py), which readers of lines do not have. It is long and
rarely changes, so it is written once, in the first line of a process for which it holds:

    "lineage": {"image": IMAGE | null, "ancestors": [{"pid", "startTime", "image": IMAGE | null}]}

`image` is what the process runs; if it is missing, the process runs the image of its creator. `ancestors` begin with
the creator. Each entry has the image that the ancestor ran when it created the process before it; the last has no
`pid` if only its image is known. `"lineage": null` means that the process is no longer known. Readers of lines
(workers/detect/offline/lineages.py) store it by process id and start time.

Whether a line has it depends only on the lines of the same process, and therefore not on the number of workers. It is
repeated after REPEAT_NS, so a reader that starts in the middle of a file soon has it.
"""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

import msgspec
import numpy as np

from headrace.workers.enrich.tree import Image, Key, Process, ProcessTree, ancestors
from headrace.workers.records.rows import Contexts, Rows
from headrace.workers.views.style import said

Array = np.ndarray[Any, Any]
REPEAT_NS = 60 * 10**9
MAX_BYTES = 32768
"""Approximate maximum for the ancestors in one line. Entries beyond it have no command line and directory."""
MAX_TOLD = 65536


class _State(NamedTuple):
    """Process information. `parts` holds identical objects while it is unchanged, and is empty if the process is
    unknown.
    """

    key: Key
    process: Process | None
    image: Image | None
    above: list[Process]
    parts: tuple[Any, ...]


class _KnownProcess(NamedTuple):
    parts: tuple[Any, ...]
    until_ns: int
    """Time from which it is repeated."""


NEVER = _KnownProcess((), 2**63)


class Lineages:
    """Process information that one render of one worker has written."""

    def __init__(self, tree: ProcessTree) -> None:
        self._tree = tree
        tree.followers.add(self)
        self._states: dict[int, _State] = {}
        self._version: tuple[int, int] = (-1, -1)
        self._told: dict[Key, _KnownProcess] = {}
        self._before: dict[Key, _KnownProcess | None] = {}
        """State of the processes that the last describe() changed, as it was before."""

    def describe(self, rows: Rows, contexts: Contexts) -> list[tuple[int, str]]:
        """(position, JSON text) for each row whose line must include process information. Usually there are none, and
        the cost is one check per distinct context.
        """
        self._before.clear()
        version = self._tree.version, contexts.generation
        if self._version != version:
            self._version = version
            self._states.clear()
        states = {who: self._state(who, contexts) for who in np.flatnonzero(np.bincount(rows.who)).tolist()}
        # a process that changed within these rows has contexts from before and after the change
        last_ns = int(rows.time_ns.max())
        news = {state.key for state in states.values() if self._is_due(state, last_ns)}
        if not news:
            return []
        concerned = np.flatnonzero(np.isin(rows.who, [who for who, state in states.items() if state.key in news]))
        found: list[tuple[int, str]] = []
        columns = concerned, rows.who[concerned], rows.time_ns[concerned]
        for at, who, time_ns in zip(*(column.tolist() for column in columns), strict=True):
            state = states[who]
            if self._is_due(state, time_ns):
                found.append((at, self._piece(state, time_ns)))
        return found

    def gone(self, key: Key) -> None:
        """Forget a process that has no more lines."""
        self._told.pop(key, None)

    def unsay(self) -> None:
        """Undo the last describe(): its lines are not written, and the rows will be rendered again."""
        for key, told in self._before.items():
            self._told.pop(key, None)
            if told is not None:
                self._told[key] = told
        self._before.clear()

    def _is_due(self, state: _State, time_ns: int) -> bool:
        told = self._told.get(state.key, NEVER)
        return told.parts != state.parts or time_ns >= told.until_ns

    def _state(self, who: int, contexts: Contexts) -> _State:
        known = self._states.get(who)
        if known is None:
            context = contexts.table[who]
            process, image = self._tree.running(context)
            key = int(context["tgid"]), int(context["process_start_ns"])
            above = ancestors(self._tree, process) if process else []
            parts = [part for each in (process, *above) if each for part in (each.creator, each.creator_image)]
            known = self._states[who] = _State(key, process, image, above, (image, *parts) if process else ())
        return known

    def _piece(self, state: _State, time_ns: int) -> str:
        self._before.setdefault(state.key, self._told.get(state.key))
        if state.process is None:
            self._told.pop(state.key, None)
            return ',"lineage":null'
        if len(self._told) >= MAX_TOLD:
            del self._told[next(iter(self._told))]
        self._told[state.key] = _KnownProcess(state.parts, time_ns + REPEAT_NS)
        created = state.process.creator_image
        own = "" if state.image is created else f'"image":{_image(state.image)},'
        return f',"lineage":{{{own}"ancestors":[{",".join(_ancestors(state.process, state.above))}]}}'


def _ancestors(process: Process, above: list[Process]) -> list[str]:
    found: list[str] = []
    size = 0
    for image, each in zip((p.creator_image for p in (process, *above)), (*above, None), strict=True):
        if each is None and image is None:
            break
        who = "" if each is None else f'"pid":{each.key[0]},"startTime":{each.key[1]},'
        found.append(f'{{{who}"image":{_image(image, size > MAX_BYTES)}}}')
        size += len(found[-1])
    return found


def _image(image: Image | None, short: bool = False) -> str:
    if image is None:
        return "null"
    parts: dict[str, object] = {}
    for name, data in (("path", image.path), ("asked", image.asked), ("cwd", image.cwd)):
        if data is not None and not (short and name == "cwd"):
            parts |= said(name, data)
    if image.argv and not short:
        argv = [said("", each) for each in image.argv.removesuffix(b"\0").split(b"\0")]
        parts["argv"] = [each[""] for each in argv]
        if any(len(each) > 1 for each in argv):
            parts["argvBase64"] = base64.b64encode(image.argv).decode()
    if short:
        parts["short"] = True
    return msgspec.json.encode(parts).decode()
