"""Reads policies from files and folders. A file has one policy, a list of them, or several documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headrace.bpf.tables.catalogue import Catalogue
from headrace.config.files import FileError, below, text
from headrace.config.located import Located, LocatedError, documents
from headrace.config.policies.policy import KEYS, MAX_POLICIES, Policy, PolicyError, own_form
from headrace.config.policies.tracee import is_tracee, translated

SUFFIXES = (".yaml", ".yml", ".json")


def _policy_of(located: Located, file: str, catalogue: Catalogue) -> Policy:
    """The policy in a part of a file. PolicyError if something in it is wrong."""
    if is_tracee(located):
        return translated(located, file, catalogue)
    if not isinstance(located.value, dict):
        raise PolicyError(f"{file}:{located.line}: a policy is a mapping with the keys {', '.join(KEYS)}")
    return own_form(located.marked(file))


def _of_file(path: Path, catalogue: Catalogue) -> list[Policy]:
    found: list[Policy] = []
    try:
        for document in documents(text(path)):
            if document.value is None:
                continue
            found += [_policy_of(part, str(path), catalogue) for part in document.parts()]
    except FileError as error:
        raise PolicyError(f"{path}: {error}") from error
    except LocatedError as error:
        raise PolicyError(f"{path}:{error.line}: {error.why}") from error
    if not found:
        raise PolicyError(f"{path}: no policy is in it")
    return found


def _files(path: Path) -> list[Path]:
    try:
        found = list(below(path))
    except FileError as error:
        raise PolicyError(f"{path}: {error}") from error
    if found == [path]:
        return found
    chosen = [each for each in found if each.suffix in SUFFIXES]
    if not chosen:
        raise PolicyError(f"{path}: no policy is in it (*{', *'.join(SUFFIXES)})")
    return chosen


def read_policies(given: Sequence[str | Mapping[str, Any]], catalogue: Catalogue) -> tuple[Policy, ...]:
    """All policies of a run: those of files and folders, and those that the configuration contains. PolicyError if one
    is wrong, two have the same name, or there are more than MAX_POLICIES.
    """
    found: list[Policy] = []
    for one in given:
        if isinstance(one, str):
            found += [policy for path in _files(Path(one)) for policy in _of_file(path, catalogue)]
        else:
            found.append(own_form(one))
    named: dict[str, Policy] = {}
    for policy in found:
        first = named.setdefault(policy.name, policy)
        if first is not policy:
            raise PolicyError(f"{policy.place}: the name {policy.name} is taken by {first.place}")
    parts = sum(len(policy.parts) for policy in found)
    if parts > MAX_POLICIES:
        kinds = f"{len(found)} policies" + (f" with {parts} scopes" if parts > len(found) else "")
        raise PolicyError(f"{kinds}: there can be {MAX_POLICIES}")
    return tuple(found)
