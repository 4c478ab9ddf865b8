"""What JSON lines say of processes beside each event: what they run, and who created them and ran what then.

Signatures read it from the process tree (workers/enrich/tree.py), which lines do not have. It is long and seldom
changes, so it is said once, in the first line of a process of which it is true:

    "lineage": {"image": IMAGE | null, "links": [{"pid", "startTime", "creator": {"pid", "startTime"}, "image": IMAGE}]}

`image` is what the process runs; missing, it is what its creator ran. `links` are who created whom and what the
creator ran then: of the process itself and of its ancestors, each once. `"lineage": null`: nothing is known any more.
What reads the lines (workers/detect/lineages.py) remembers it by process id and start time.

One of these for each render of a worker: a process is always with one worker. After REPEAT_ROWS everything is told
again, so that who reads on from the middle of a file knows it before long.
"""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

import msgspec
import numpy as np

from workers.enrich.tree import Image, Key, Process, ProcessTree, ancestors
from workers.rows import Contexts, Rows
from workers.views.style import said

Array = np.ndarray[Any, Any]
REPEAT_ROWS = 1 << 17
MAX_LINE_BYTES = 1 << 17
"""Of links in one line, about; the rest is in the next line of the process."""


class _State(NamedTuple):
    """What is to be known of a process. `parts` are the same objects for as long as it is the same."""

    key: Key
    image: Image | None
    chain: tuple[Process, ...]
    """The process and its ancestors, empty if it is not known."""
    parts: tuple[Any, ...]


class Lineages:
    """What one render of one worker has told."""

    def __init__(self, tree: ProcessTree) -> None:
        self._tree = tree
        self._states: dict[int, _State] = {}
        self._version: tuple[int, int] = (-1, -1)
        self._told: dict[Key, tuple[Any, ...]] = {}
        self._links: dict[Key, tuple[Any, ...]] = {}
        self._rows = 0

    def tell(self, rows: Rows, contexts: Contexts) -> list[tuple[int, str]]:
        """Rows, by position, whose lines must tell something, and what. Nearly always there are none: then it costs
        a look at each distinct context.
        """
        self._rows += len(rows)
        if self._rows > REPEAT_ROWS:
            self._rows = 0
            self._told.clear()
            self._links.clear()
        version = self._tree.version, contexts.generation
        if self._version != version:
            self._version = version
            self._states.clear()
        whos = np.flatnonzero(np.bincount(rows.who)).tolist()
        states = {who: self._state(who, contexts) for who in whos}
        # a process that has changed within these rows has contexts of before and of after
        news = {s.key for s in states.values() if self._told.get(s.key, ()) != s.parts}
        if not news:
            return []
        concerned = np.isin(rows.who, [who for who, state in states.items() if state.key in news])
        found: list[tuple[int, str]] = []
        for at in np.flatnonzero(concerned).tolist():
            state = states[int(rows.who[at])]
            if self._told.get(state.key, ()) != state.parts:
                found.append((at, self._piece(state)))
        return found

    def _state(self, who: int, contexts: Contexts) -> _State:
        known = self._states.get(who)
        if known is None:
            context = contexts.table[who]
            process, image = self._tree.running(context)
            key = int(context["tgid"]), int(context["process_start_ns"])
            chain = (process, *ancestors(self._tree, process)) if process else ()
            parts = (image, *(part for each in chain for part in (each.creator, each.creator_image)))
            known = self._states[who] = _State(key, image, chain, parts if chain else ())
        return known

    def _piece(self, state: _State) -> str:
        if not state.chain:
            self._told.pop(state.key, None)
            return ',"lineage":null'
        links: list[str] = []
        size = 0
        for process in state.chain:
            link = process.creator, process.creator_image
            if self._links.get(process.key, ()) != link:
                if size > MAX_LINE_BYTES:
                    break
                self._links[process.key] = link
                links.append(_link(process))
                size += len(links[-1])
        else:
            self._told[state.key] = state.parts
        own = "" if state.image is state.chain[0].creator_image else f'"image":{_image(state.image)},'
        return f',"lineage":{{{own}"links":[{",".join(links)}]}}'


def _link(process: Process) -> str:
    parts: dict[str, object] = {"pid": process.key[0], "startTime": process.key[1]}
    if process.creator is not None:
        parts["creator"] = {"pid": process.creator[0], "startTime": process.creator[1]}
    head = msgspec.json.encode(parts).decode()
    return f'{head[:-1]},"image":{_image(process.creator_image)}}}'


def _image(image: Image | None) -> str:
    if image is None:
        return "null"
    parts: dict[str, object] = {}
    for name, data in (("path", image.path), ("asked", image.asked), ("cwd", image.cwd)):
        if data is not None:
            parts |= said(name, data)
    if image.argv:
        argv = [said("", each) for each in image.argv.removesuffix(b"\0").split(b"\0")]
        parts["argv"] = [each[""] for each in argv]
        if any(len(each) > 1 for each in argv):
            parts["argvBase64"] = base64.b64encode(image.argv).decode()
    return msgspec.json.encode(parts).decode()
