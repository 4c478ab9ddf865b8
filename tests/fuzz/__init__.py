"""Fuzzing: one module a target, and what runs them (`python -m tests.fuzz`, docs/explanation/fuzzing.md).

A target is a module with

    target(data)   raises on a defect, and on nothing else: what a reader may refuse, the target takes as an answer
    seeds()        small inputs that look real, from which mutation begins
    EACH           inputs that one call of target() tries: with more than one, the fuzzer's bytes are a parent whose
                   children, made of nothing but these bytes, are decoded in one pass of numpy
    TOKENS         words of the format
    FORM           "yaml", "json" or "toml": half of the mutations change what the text says (trees.py); "" for bytes

Edges are counted in bpf/, config/, pipeline/ and workers/.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Protocol, cast

NAMES = (
    "arguments",
    "frames",
    "recordings",
    "wire",
    "lines",
    "signatures",
    "sigma",
    "exceptions",
    "settings",
    "views",
)


def reasoned(why: str) -> None:
    """What is refused is refused with a reason."""
    assert why, "refused without a reason"


class Target(Protocol):
    """A module of this folder."""

    EACH: int
    TOKENS: tuple[bytes, ...]
    FORM: str

    def target(self, data: bytes) -> None: ...
    def seeds(self) -> Iterable[bytes]: ...


def load(name: str) -> Target:
    """The target of that name."""
    return cast(Target, import_module(f"tests.fuzz.{name}"))
