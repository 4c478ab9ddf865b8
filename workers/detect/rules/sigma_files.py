"""Loads files of Sigma rules with pySigma, and applies the filters and placeholders of all files to the rules of all.

A document is a rule, a filter, or a processing pipeline with `vars`: the values of placeholders (`expand`). Nothing
else of a pipeline is used. The conditions of pySigma do not accept dots and hyphens in all names of selections, so
pySigma gets names without them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from headrace.bpf.tables.catalogue import Catalogue
from headrace.config.files import FileError, text
from headrace.config.rules import Rule, RuleError, files_of, taken
from headrace.workers.detect.rules.sigma_rules import converted
from headrace.workers.detect.rules.sigma_values import Placeholders, repeated_modifier

MAX_FILE_BYTES = 1 << 20
UNKNOWN_TO_CONDITIONS = re.compile("[.-]")
VARIABLES, ITS_OWN = "vars", {"vars", "name", "priority", "allowed_backends", "transformations"}
TRANSFORMATION = "value_placeholders"
"""The only transformation that a pipeline with variables may have. headrace always applies it."""


def load_sigma(
    folders: Sequence[Path], catalogue: Catalogue, keywords: bool = False
) -> tuple[list[Rule], list[RuleError]]:
    """The rules of files and folders, and the errors of what is refused. ImportError if pySigma is not installed."""
    parsed: list[tuple[Path, Any]] = []
    refused: list[RuleError] = []
    placeholders: dict[str, tuple[str, ...]] = {}
    for folder in folders:
        try:
            files = files_of(folder)
        except FileError as error:
            refused.append(RuleError(str(folder), 0, "", str(error)))
            continue
        for path in files:
            try:
                parsed.append((path, _collection(path, placeholders)))
            except RuleError as error:
                refused.append(error)
    refused += _apply_filters(parsed)
    rules: dict[str, Rule] = {}
    for path, collection in parsed:
        for rule in collection.rules:
            try:
                found = converted(rule, str(path), catalogue, keywords, placeholders)
                if found.id in rules:
                    raise RuleError(str(path), 0, found.id, taken(rules[found.id]))
            except RuleError as error:
                refused.append(error)
            else:
                rules[found.id] = found
    return list(rules.values()), refused


def _collection(path: Path, placeholders: dict[str, tuple[str, ...]]) -> Any:
    """The documents of a file as pySigma parses them; RuleError. Adds the variables of pipelines to `placeholders`."""
    from sigma.collection import SigmaCollection
    from sigma.modifiers import SigmaWideModifier, modifier_mapping

    # The specification defines it as an alias of `wide`. pySigma does not know it.
    modifier_mapping.setdefault("utf16le", SigmaWideModifier)
    try:
        data = text(path, MAX_FILE_BYTES, "utf-8-sig")
        if twice := repeated_modifier(data):
            # Each modifier that expands values multiplies the output of the one before.
            raise ValueError(f"{twice}: a modifier stands twice")
        documents = list(yaml.safe_load_all(data))
        pipelines = [each for each in documents if isinstance(each, dict) and VARIABLES in each]
        collection = SigmaCollection.from_dicts([_named(each) for each in documents if each not in pipelines])
        for each in pipelines:
            placeholders.update(_variables(each, placeholders))
        return collection
    except FileError as error:
        raise RuleError(str(path), 0, "", str(error)) from error
    except Exception as error:  # decision 37: PyYAML and pySigma can raise anything on hostile files
        mark = getattr(error, "problem_mark", None)
        why = getattr(error, "problem", None) or str(error) or type(error).__name__
        line = mark.line + 1 if mark else 0
        raise RuleError(str(path), line, "", f"not a Sigma rule: {why}") from error


def _named(document: Any) -> Any:
    """A rule or filter with names of selections that pySigma's conditions accept."""
    for part in ("detection", "filter"):
        found = document.get(part) if isinstance(document, dict) else None
        if isinstance(found, dict):
            document[part] = {_known(key): value for key, value in found.items()}
            if len(document[part]) < len(found):
                raise ValueError("two selections with one name")
            document[part] |= {"condition": _condition(found["condition"])} if "condition" in found else {}
    return document


def _condition(given: Any) -> Any:
    return [_known(each) for each in given] if isinstance(given, list) else _known(given)


def _known(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    return UNKNOWN_TO_CONDITIONS.sub(lambda found: f"_x{ord(found[0]):x}_", given)


def _variables(pipeline: Mapping[str, Any], known: Placeholders) -> Placeholders:
    """The values of the placeholders in a pipeline. ValueError for other contents, or if a name already has values."""
    other = sorted(map(str, set(pipeline) - ITS_OWN))
    steps = pipeline.get("transformations") or []
    kinds = {step.get("type") if isinstance(step, dict) else step for step in steps} - {TRANSFORMATION}
    if other or kinds:
        raise ValueError(f"a processing pipeline: only its vars are used, not {', '.join(map(str, other or kinds))}")
    if not isinstance(pipeline[VARIABLES], dict):
        raise ValueError("vars: a mapping of placeholders to values is wanted")
    found = {}
    for name, given in pipeline[VARIABLES].items():
        values = given if isinstance(given, list) else [given]
        if not values or not all(isinstance(v, str | int | float) and not isinstance(v, bool) for v in values):
            raise ValueError(f"vars: {name}: texts or numbers are wanted")
        if name in known:
            raise ValueError(f"vars: {name} has values already, from another file")
        found[str(name)] = tuple(map(str, values))
    return found


def _apply_filters(parsed: list[tuple[Path, Any]]) -> list[RuleError]:
    """Apply filters to the rules of all files (pySigma: only of their own file). Returns the errors of filters."""
    refused: list[RuleError] = []
    for path, owner in parsed:
        for each in owner.filters:
            try:
                _apply(each, path, owner, [collection for _, collection in parsed])
            except RuleError as error:
                refused.append(error)
    return refused


def _apply(given: Any, path: Path, owner: Any, collections: list[Any]) -> None:
    """Apply one filter to the rules of the other files. RuleError if it fails, or if it applies to no rule at all."""
    try:
        for collection in collections:
            if collection is not owner:
                collection.rules = [_filtered(given, rule) for rule in collection.rules]
        if not any(_applies(given, rule) for collection in collections for rule in collection.rules):
            raise ValueError("none of the rules that were loaded is one that it names")
    except Exception as error:  # decision 37
        name = str(given.id or given.title)
        raise RuleError(str(path), 0, name, f"not a filter that can be applied: {error}") from error


def _filtered(given: Any, rule: Any) -> Any:
    return given.apply_on_rule(rule) if hasattr(rule, "detection") else rule


def _applies(given: Any, rule: Any) -> bool:
    return hasattr(rule, "detection") and bool(given._should_apply_on_rule(rule))
