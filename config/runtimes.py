"""Container runtimes: where they are asked (`--crs RUNTIME:SOCKET`), and what is known from them of a container."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import NamedTuple

import msgspec

from headrace.bpf.tables.catalogue import nearest
from headrace.config.settings import SettingsError

SOCKETS = {
    "docker": "/var/run/docker.sock",
    "containerd": "/run/containerd/containerd.sock",
    "crio": "/run/crio/crio.sock",
    "podman": "/run/podman/podman.sock",
}
"""Where each is, if nobody says so."""
MODULES = {"docker": "docker", "podman": "docker", "containerd": "grpc", "crio": "grpc"}
SPELLINGS = {"cri-o": "crio"}
MOST = 16
FREE, PENDING, KNOWN, UNKNOWN, FAILED = range(5)
STATES = ("free", "pending", "known", "unknown", "failed")


class Endpoint(NamedTuple):
    """A runtime's socket."""

    runtime: str
    path: str

    def __str__(self) -> str:
        return f"{self.runtime}:{self.path}"


def endpoints(specs: Sequence[str]) -> tuple[Endpoint, ...]:
    """Those that were named, or the usual ones. SettingsError."""
    found = tuple(_one(spec) for spec in specs) or tuple(Endpoint(*each) for each in SOCKETS.items())
    if len(found) > MOST:
        raise SettingsError(f"--crs: at most {MOST}")
    missing = sorted({MODULES[e.runtime] for e in found if find_spec(MODULES[e.runtime]) is None})
    if missing and (specs or len(missing) == len(set(MODULES.values()))):
        raise SettingsError(
            f"--containers: needs {' and '.join(missing)}, not installed here: pip install 'headrace[containers]'"
        )
    return tuple(e for e in found if MODULES[e.runtime] not in missing)


def _one(spec: str) -> Endpoint:
    runtime, colon, path = spec.partition(":")
    runtime = SPELLINGS.get(runtime, runtime)
    if runtime not in SOCKETS:
        near = nearest(runtime, SOCKETS)
        hint = f"; did you mean {near}?" if near else ""
        raise SettingsError(f"--crs {spec}: no such runtime: {runtime} (there are: {', '.join(SOCKETS)}){hint}")
    path = path.removeprefix("unix://")
    if colon and not path.startswith("/"):
        raise SettingsError(f"--crs {spec}: a socket's path is absolute, such as {runtime}:{SOCKETS[runtime]}")
    return Endpoint(runtime, path or SOCKETS[runtime])


class Info(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a runtime says of a container. `reason`: why it says nothing."""

    name: str = ""
    image: str = ""
    digest: str = ""
    pod: str = ""
    namespace: str = ""
    pod_uid: str = ""
    labels: dict[str, str] = {}
    reason: str = ""
    cut: bool = False
    """Labels, or the ends of long texts, had no room."""


class Answer(msgspec.Struct, frozen=True):
    """What is known of a container: a state, and what the runtime said."""

    state: int = PENDING
    info: Info = Info()
    since_ns: int = 0
    """CLOCK_BOOTTIME, when it was given; of what is pending, when it was asked for. 0: nobody has heard of it yet."""

    @property
    def known(self) -> Info | None:
        """What the runtime says, if it has said it."""
        return self.info if self.state == KNOWN else None

    @property
    def word(self) -> str:
        """As events carry it."""
        return f"failed:{self.info.reason}" if self.state == FAILED else STATES[self.state]
