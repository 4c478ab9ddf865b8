"""What a policy is, and headrace's own form of it in YAML.

    name: web-servers
    description: what the web servers open and run
    scope: [container, uid=www-data]
    events: [sched_process_exec, openat.args.pathname=/etc/*]
    signatures: ["TRC-*"]
    output: [json:/var/log/web.json]

An event belongs to a policy if its process is in the policy's scope and the policy's conditions hold. Several policies
can claim an event; it is reported once, with the names of all of them (decisions/0056-policies.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from headrace.bpf.tables.catalogue import did_you_mean
from headrace.config.located import MARK

MAX_POLICIES = 64
"""Also the limit on parts: the kernel side has a bit for each."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
LISTS = ("scope", "events", "signatures", "output", "findings")
KEYS = ("name", "description", *LISTS)


class PolicyError(Exception):
    """A policy that cannot be used. The message begins with the file and the line."""


class PolicyPart(msgspec.Struct, frozen=True):
    """Some processes, and what is asked of them. Scope expressions are ANDed; see bpf/programs/scope.py."""

    scope: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    """Expressions as of --events."""
    signatures: tuple[str, ...] = ()
    """Patterns as of --rules."""
    place: str = ""
    """`FILE:LINE`, for messages."""


class Policy(msgspec.Struct, frozen=True):
    """One policy. It has one part, or several if some of its events have a scope of their own."""

    name: str
    parts: tuple[PolicyPart, ...]
    description: str = ""
    output: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    place: str = ""


def texts_of(given: Any, place: str) -> tuple[str, ...]:
    """The texts of a list, or a single text. PolicyError if it is neither."""
    parts = given if isinstance(given, list) else [given]
    for part in parts:
        if not isinstance(part, str) or not part:
            raise PolicyError(f"{place}: a text or a list of texts is wanted, not {part!r}")
    return tuple(parts)


def checked_name(value: Any, place: str) -> str:
    """The name of a policy. PolicyError if it is missing or has other characters than names have."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise PolicyError(f"{place}: the name of a policy has letters, digits, '.', '_' and '-': {value!r}")
    return value


def own_form(given: Mapping[str, Any]) -> Policy:
    """The policy in headrace's form that a mapping of marked() describes. PolicyError if something in it is wrong."""
    found = dict(given)
    where = Where.of(found)
    here = where.of_key("")
    for key in found:
        if key not in KEYS:
            raise PolicyError(f"{where.of_key(key)}: no such key: {key}{did_you_mean(key, KEYS)}")
    name = checked_name(found.get("name"), here)
    lists = {key: texts_of(found[key], f"{where.of_key(key)}: {key}") for key in LISTS if key in found}
    if not lists.get("events") and not lists.get("signatures"):
        raise PolicyError(f"{here}: the policy {name} asks for neither events nor signatures")
    description = found.get("description", "")
    if not isinstance(description, str):
        raise PolicyError(f"{where.of_key('description')}: description: a text is wanted")
    part = PolicyPart(lists.get("scope", ()), lists.get("events", ()), lists.get("signatures", ()), here)
    return Policy(name, (part,), description, lists.get("output", ()), lists.get("findings", ()), here)


@dataclass(frozen=True)
class Where:
    """The file of a policy, its line there, and the lines of its keys."""

    file: str = "policy"
    line: int = 0
    keys: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, found: dict[str, Any]) -> Where:
        """Take it out of what marked() made."""
        return cls(*found.pop(MARK)) if isinstance(found.get(MARK), tuple) else cls()

    def of_key(self, key: str) -> str:
        """`FILE:LINE` of a key."""
        line = self.keys.get(key, self.line)
        return f"{self.file}:{line}" if line else self.file
