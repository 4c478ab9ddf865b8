"""Clients of container runtimes: what is asked of them, and what they say. Used by the enricher's threads alone.

    docker, podman     the Docker Engine API, by the docker SDK (docker.py; podman's service speaks it, too)
    containerd, crio   the CRI, by grpc (pipeline/containers/cri.py)

Each takes an id of 64 hexadecimal digits. Answers are of other programs: nothing of them is believed to have a form.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, Protocol

from headrace.config.runtimes import Info

TIMEOUT_S = 2.0
"""Of one question."""
MAX_BYTES = 4 << 20
"""Of an answer."""
POD = "io.kubernetes.pod."


class Unavailable(Exception):
    """A runtime gave no answer: `reason` in a word, as events show it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Happened(NamedTuple):
    """What a runtime says has become of a container: `changed` (ask for it), or `gone`. Of none: `listening`, it says
    so from now on.
    """

    id: str
    what: str


class Runtime(Protocol):
    """What the enricher wants of a runtime. Both raise Unavailable."""

    def look(self, container: str) -> Info | None:
        """What it knows of a container; None if it knows none of that id."""

    def events(self) -> Iterator[Happened]:
        """What becomes of its containers, for as long as it says so; it ends, or raises, when it cannot."""


def silence() -> Iterator[Happened]:
    """Events of who never says anything."""
    threading.Event().wait()
    yield from ()


def word(value: object) -> str:
    """A text of an answer as it may be shown: what is no character is replaced."""
    return str(value).encode("utf-8", "replace").decode()


def of_labels(labels: object, wanted: tuple[str, ...]) -> dict[str, Any]:
    """Parts of an Info that stand in labels: those of pods, and the wanted ones."""
    if not isinstance(labels, Mapping):
        return {}
    texts = {word(k): word(v) for k, v in labels.items()}
    return {
        "pod": texts.get(f"{POD}name", ""),
        "namespace": texts.get(f"{POD}namespace", ""),
        "pod_uid": texts.get(f"{POD}uid", ""),
        "labels": {k: v for k, v in texts.items() if any(fnmatchcase(k, glob) for glob in wanted)},
    }
