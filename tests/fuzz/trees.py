"""Mutation of what stands in a YAML, JSON or TOML file, in place of its bytes: what comes out is such a file again, so
that it is not refused before its meaning is looked at.
"""

from __future__ import annotations

import json
import random
import tomllib
from collections.abc import Callable, Sequence
from typing import Any

import yaml

HOSTILE: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**31,
    2**63,
    2**64,
    -(2**63) - 1,
    10**30,
    0.5,
    float("inf"),
    float("nan"),
    "",
    " ",
    "*",
    "?",
    "\0",
    "%",
    "\\",
    "[z-a]",
    "a\nb",
    "\u2028",
    "\u202e",
    "\ufeff",
    "\U0010ffff",
    "-1",
    "0x10",
    "1.2.3.4/99",
    "::/0",
    "(",
    "(a|b){1,500}",
    "x" * 5000,
    [],
    [[]],
    [None],
    {},
    {"": None},
    {"list": "more"},
    {"not": {}},
)
MODIFIERS = tuple(
    "re cidr glob has gt lt exists contains startswith endswith all nocase hex base64 base64offset wide utf16 windash "
    "neq expand fieldref cased i m s minute".split()
)
MAX_CHANGES = 3
Tree = Any


def _places(tree: Tree, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every (container, key) below a tree."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(pairs):
        found.append((tree, key))
        _places(value, found)
    return found


def _changed(tree: Tree, chance: random.Random, words: Sequence[str]) -> None:
    """One change, in place."""
    places = _places(tree, [])
    if not places:
        return
    inside, key = chance.choice(places)
    value, what = inside[key], chance.randrange(8)
    if what == 0:
        del inside[key]
    elif what == 1 and isinstance(inside, dict):
        inside[f"{key}|{chance.choice(MODIFIERS)}"] = inside.pop(key)
    elif what == 2 and isinstance(inside, dict):
        inside[chance.choice(words)] = inside.pop(key)
    elif what == 3:
        inside[key] = [value, chance.choice(HOSTILE)]
    elif what == 4:
        other, at = chance.choice(places)
        inside[key] = json.loads(json.dumps(other[at], default=str))
    elif what == 5 and isinstance(value, str):
        at = chance.randrange(len(value) + 1)
        inside[key] = value[:at] + chance.choice(words) + value[at:]
    else:
        inside[key] = chance.choice([*HOSTILE, *words])


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(k))} = {_toml_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    return repr(value) if isinstance(value, float) else json.dumps("" if value is None else value)


def _toml(trees: list[Tree]) -> str:
    return "\n".join(f"{json.dumps(str(k))} = {_toml_value(v)}" for tree in trees for k, v in tree.items())


def _yaml(trees: list[Tree]) -> str:
    return yaml.dump_all(trees, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), allow_unicode=True)


FORMS: dict[str, tuple[Callable[[str], list[Tree]], Callable[[list[Tree]], str]]] = {
    "yaml": (lambda text: list(yaml.load_all(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))), _yaml),
    "json": (lambda text: [json.loads(text)], lambda trees: json.dumps(trees[0])),
    "toml": (lambda text: [tomllib.loads(text)], _toml),
}


def mutated(form: str, data: bytes, chance: random.Random, tokens: Sequence[bytes]) -> bytes | None:
    """A file that says something else, or None if `data` is none of that form."""
    read, written = FORMS[form]
    words = [token.decode("utf-8", "replace").strip(" :=\"'") for token in tokens] or ["x"]
    try:
        tree: Tree = read(data.decode())
        for _ in range(chance.randint(1, MAX_CHANGES)):
            _changed(tree, chance, words)
        return written(tree).encode()
    except (ValueError, TypeError, AttributeError, IndexError, RecursionError, yaml.YAMLError):
        return None
