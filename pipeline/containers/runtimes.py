"""Interface of container runtime clients. Only threads of the enricher use them.

    docker, podman     the Docker Engine API, with the docker SDK (docker.py; podman's service implements it too)
    containerd, crio   the CRI, over gRPC (pipeline/containers/cri.py)

Container ids have 64 hexadecimal digits. Answers come from other programs and are not trusted to be well-formed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, Protocol

from headrace.config.runtimes import Info

TIMEOUT_S = 2.0
"""Timeout of one request."""
MAX_BYTES = 4 << 20
"""Maximum size of an answer."""
POD = "io.kubernetes.pod."


class Unavailable(Exception):
    """A runtime gave no valid answer. `reason` is a short text that events show."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Happened(NamedTuple):
    """An event of a runtime. `what` is `changed` (look the container up), `gone`, or `listening`. With `listening`, the
    id is empty: the runtime reports events from now on.
    """

    id: str
    what: str


class Runtime(Protocol):
    """Interface of a runtime client. Both methods raise Unavailable."""

    def look(self, container: str) -> Info | None:
        """Look up a container; None if the runtime does not know the id."""

    def events(self) -> Iterator[Happened]:
        """Yield events of its containers. Ends or raises when the connection fails."""


def silence() -> Iterator[Happened]:
    """Event stream of a runtime that has no events: blocks forever."""
    threading.Event().wait()
    yield from ()


def word(value: object) -> str:
    """A value of an answer as valid text; replaces characters that cannot be encoded."""
    return str(value).encode("utf-8", "replace").decode()


def of_labels(labels: object, wanted: tuple[str, ...]) -> dict[str, Any]:
    """Fields of an Info that come from labels: those of the pod, and the labels that match `wanted` (globs)."""
    if not isinstance(labels, Mapping):
        return {}
    texts = {word(k): word(v) for k, v in labels.items()}
    return {
        "pod": texts.get(f"{POD}name", ""),
        "namespace": texts.get(f"{POD}namespace", ""),
        "pod_uid": texts.get(f"{POD}uid", ""),
        "labels": {k: v for k, v in texts.items() if any(fnmatchcase(k, glob) for glob in wanted)},
    }
