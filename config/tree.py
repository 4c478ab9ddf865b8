"""Boolean trees: the one form of every condition, whatever its leaves are.

    And       all parts hold                       a mapping in YAML, or {all: [...]}
    Or        one part holds                       a list of mappings, or {any: [...]}
    Not       the part does not hold               {not: ...}
    Certain   the part is true, and not unknown    exceptions, and records that must exist

A leaf is anything else: a test of a field (config/conditions.py), the number of a test in a compiled set of rules
(workers/detect/rules/compiled.py), the number of a test that the kernel evaluates (bpf/programs/early.py).

Verdicts are three-valued: True, False and None, which is unknown. And is the least of its parts, Or the greatest, in
the order False, None, True. Not reverses the order. Certain makes None False.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, Union

import msgspec

L = TypeVar("L")
M = TypeVar("M")
R = TypeVar("R")


class And(msgspec.Struct, Generic[L], frozen=True, tag="and"):
    """True if all parts are true, or if there are none."""

    parts: tuple[L | And[L] | Or[L] | Not[L] | Certain[L], ...] = ()


class Or(msgspec.Struct, Generic[L], frozen=True, tag="or"):
    """True if one of the parts is true. False if there are none."""

    parts: tuple[L | And[L] | Or[L] | Not[L] | Certain[L], ...] = ()


class Not(msgspec.Struct, Generic[L], frozen=True, tag="not"):
    """True if the part is false."""

    part: L | And[L] | Or[L] | Not[L] | Certain[L]


class Certain(msgspec.Struct, Generic[L], frozen=True, tag="certain"):
    """True if the part is true, false if it is false or unknown."""

    part: L | And[L] | Or[L] | Not[L] | Certain[L]


Tree = Union[L, And[L], Or[L], Not[L], Certain[L]]  # noqa: UP007 - a type variable has no `|` in Python 3.11
TRUE: And[Any] = And()
FALSE: Or[Any] = Or()


def leaves(tree: Tree[L]) -> Iterator[L]:
    """All leaves, from left to right."""
    if isinstance(tree, And | Or):
        for part in tree.parts:
            yield from leaves(part)
    elif isinstance(tree, Not | Certain):
        yield from leaves(tree.part)
    else:
        yield tree


def mapped(tree: Tree[L], change: Callable[[L], Tree[M]]) -> Tree[M]:
    """The same tree with other leaves."""
    if isinstance(tree, And):
        return And(tuple(mapped(part, change) for part in tree.parts))
    if isinstance(tree, Or):
        return Or(tuple(mapped(part, change) for part in tree.parts))
    if isinstance(tree, Not):
        return Not(mapped(tree.part, change))
    if isinstance(tree, Certain):
        return Certain(mapped(tree.part, change))
    return change(tree)


@dataclass(frozen=True)
class Fold(Generic[L, R]):
    """What each kind of node becomes, of what its parts have become."""

    leaf: Callable[[L], R]
    all_of: Callable[[list[R]], R]
    any_of: Callable[[list[R]], R]
    negate: Callable[[R], R]
    certain: Callable[[R], R]

    def __call__(self, tree: Tree[L]) -> R:
        if isinstance(tree, And):
            return self.all_of([self(part) for part in tree.parts])
        if isinstance(tree, Or):
            return self.any_of([self(part) for part in tree.parts])
        if isinstance(tree, Not):
            return self.negate(self(tree.part))
        if isinstance(tree, Certain):
            return self.certain(self(tree.part))
        return self.leaf(tree)


def verdict(tree: Tree[L], of: Callable[[L], bool | None]) -> bool | None:
    """True, false, or None for unknown, by the verdicts of the leaves."""
    return Fold(
        of,
        all_of=lambda found: False if False in found else None if None in found else True,
        any_of=lambda found: True if True in found else None if None in found else False,
        negate=lambda found: None if found is None else not found,
        certain=lambda found: found is True,
    )(tree)


def conjunction(*parts: Tree[L]) -> Tree[L]:
    """All of the conditions; a single condition as it is."""
    kept = tuple(part for part in parts if part != TRUE)
    return kept[0] if len(kept) == 1 else And(kept)


def simplified(tree: Tree[L], merge: Callable[[list[Tree[L]]], list[Tree[L]]] = list) -> Tree[L]:
    """An equivalent tree without constant, nested or repeated parts. `merge` may join alternatives."""
    if isinstance(tree, Not):
        inner = simplified(tree.part, merge)
        return FALSE if inner == TRUE else TRUE if inner == FALSE else Not(inner)
    if isinstance(tree, Certain):
        inner = simplified(tree.part, merge)
        return inner if inner in (TRUE, FALSE) else Certain(inner)
    if not isinstance(tree, And | Or):
        return tree
    is_and = isinstance(tree, And)
    neutral, decisive = (TRUE, FALSE) if is_and else (FALSE, TRUE)
    parts: list[Tree[L]] = []
    for part in tree.parts:
        found = simplified(part, merge)
        if found == decisive:
            return decisive
        if found != neutral:
            parts += found.parts if isinstance(found, type(tree)) else [found]
    parts = list(dict.fromkeys(parts if is_and else merge(parts)))
    if len(parts) < 2:
        return parts[0] if parts else neutral
    return And(tuple(parts)) if is_and else Or(tuple(parts))
