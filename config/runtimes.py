"""Container runtimes: the sockets for queries (`--crs RUNTIME:SOCKET`), and the answers about containers."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import NamedTuple

import msgspec

from headrace.bpf.tables.catalogue import did_you_mean
from headrace.config.settings import SettingsError

SOCKETS = {
    "docker": "/var/run/docker.sock",
    "containerd": "/run/containerd/containerd.sock",
    "crio": "/run/crio/crio.sock",
    "podman": "/run/podman/podman.sock",
}
"""Default sockets."""
MODULES = {"docker": "docker", "podman": "docker", "containerd": "grpc", "crio": "grpc"}
SPELLINGS = {"cri-o": "crio"}
MOST = 16
FREE, PENDING, KNOWN, UNKNOWN, FAILED = range(5)
STATES = ("free", "pending", "known", "unknown", "failed")


class Endpoint(NamedTuple):
    """The socket of a runtime."""

    runtime: str
    path: str

    def __str__(self) -> str:
        return f"{self.runtime}:{self.path}"


def endpoints(specs: Sequence[str]) -> tuple[Endpoint, ...]:
    """The endpoints in `specs`, or the default ones. SettingsError if one is invalid or a module is missing."""
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
        hint = did_you_mean(runtime, SOCKETS)
        raise SettingsError(f"--crs {spec}: no such runtime: {runtime} (there are: {', '.join(SOCKETS)}){hint}")
    path = path.removeprefix("unix://")
    if colon and not path.startswith("/"):
        raise SettingsError(f"--crs {spec}: a socket's path is absolute, such as {runtime}:{SOCKETS[runtime]}")
    return Endpoint(runtime, path or SOCKETS[runtime])


class Info(msgspec.Struct, frozen=True, omit_defaults=True):
    """A runtime's answer about a container. `reason`: why there is none."""

    name: str = ""
    image: str = ""
    digest: str = ""
    pod: str = ""
    namespace: str = ""
    pod_uid: str = ""
    labels: dict[str, str] = {}
    reason: str = ""
    cut: bool = False
    """Labels, or the ends of long texts, did not fit."""


class RuntimeAnswer(msgspec.Struct, frozen=True):
    """What is known about a container: a state, and the runtime's answer."""

    state: int = PENDING
    info: Info = Info()
    since_ns: int = 0
    """CLOCK_BOOTTIME of the answer, or while it is pending, of the query. 0: not queried yet."""

    @property
    def known(self) -> Info | None:
        """The runtime's answer; None if there is none."""
        return self.info if self.state == KNOWN else None

    @property
    def word(self) -> str:
        """The state as events show it."""
        return f"failed:{self.info.reason}" if self.state == FAILED else STATES[self.state]
