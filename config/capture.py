"""Which artifacts to keep (`--capture KIND`, `--capture write=/tmp/*`, `--capture write.type=elf`)."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

import msgspec

from headrace.bpf.tables.catalogue import did_you_mean
from headrace.config.settings import SettingsError

EXEC, WRITE, MODULE, BPF, MEM = KINDS = ("exec", "write", "module", "bpf", "mem")
SPELLINGS = {
    "executable": EXEC,
    "file-write": WRITE,
    "kernel-modules": MODULE,
    "bpf-programs": BPF,
    "memory-regions": MEM,
}
"""Tracee's newer names."""
EVENTS = {
    EXEC: ("sched_process_exec",),
    WRITE: ("security_file_open", "vfs_write", "vfs_writev", "magic_write"),
    MODULE: ("module_load", "init_module", "finit_module"),
    BPF: ("bpf",),
    MEM: ("mem_prot_alert",),
}
"""Events that say that there is something to keep."""
TYPES = {"elf": (b"\x7fELF",), "script": (b"#!",), "archive": (b"PK\x03\x04", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh")}
"""Types of written files, with the bytes that they begin with."""
MAX_FILTERS = 64


class Capture(msgspec.Struct, frozen=True):
    """The artifacts to keep. `paths`: globs of written files, `types`: their types; empty: all."""

    kinds: frozenset[str]
    paths: tuple[str, ...] = ()
    types: tuple[str, ...] = ()

    @property
    def events(self) -> tuple[str, ...]:
        """Names of the events that are needed."""
        return tuple(name for kind in KINDS if kind in self.kinds for name in EVENTS[kind])

    def has_path(self, path: bytes) -> bool:
        """Whether a written file with this path is to be kept."""
        shown = path.decode("utf-8", "replace")
        return not self.paths or any(fnmatch.fnmatchcase(shown, pattern) for pattern in self.paths)

    def has_type(self, head: bytes) -> bool:
        """Whether a written file that begins with these bytes is to be kept."""
        return not self.types or any(head.startswith(TYPES[kind]) for kind in self.types)


def parse(specs: Sequence[str]) -> Capture | None:
    """The artifacts to keep; None if there are none. Raises SettingsError."""
    kinds: set[str] = set()
    paths: list[str] = []
    types: list[str] = []
    for spec in (part.strip() for text in specs for part in text.split(",")):
        name, equals, value = spec.partition("=")
        name, dot, what = name.partition(".")
        kind = SPELLINGS.get(name, name)
        if kind not in KINDS:
            hint = did_you_mean(name, (*KINDS, *SPELLINGS))
            raise SettingsError(f"--capture {spec}: no such kind: {name} (there are: {', '.join(KINDS)}){hint}")
        kinds.add(kind)
        if not equals and not dot:
            continue
        if kind != WRITE or (dot and what != "type"):
            raise SettingsError(f"--capture {spec}: only write takes a filter: write=GLOB or write.type=TYPE")
        if not value:
            raise SettingsError(f"--capture {spec}: a value is missing")
        if dot and value not in TYPES:
            hint = did_you_mean(value, TYPES)
            raise SettingsError(f"--capture {spec}: no such type: {value} (there are: {', '.join(TYPES)}){hint}")
        if not dot and not value.startswith(("/", "*", "?", "[")):
            raise SettingsError(f"--capture {spec}: the path of a file is absolute, such as write=/tmp/*")
        (types if dot else paths).append(value)
    if len(paths) + len(types) > MAX_FILTERS:
        raise SettingsError(f"--capture: at most {MAX_FILTERS} filters of write")
    return Capture(frozenset(kinds), tuple(paths), tuple(types)) if kinds else None
