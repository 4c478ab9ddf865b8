"""Values and modifiers of Sigma as tests of fields. Those that headrace cannot evaluate as Sigma defines them are
refused by name.

Used where rules are loaded: the supervisor and the commands, not the workers. pySigma has already applied the modifiers
that change values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from math import ceil, floor
from typing import Any

import yaml

from headrace.config.conditions import Node, Scalar, Test, comparison
from headrace.config.tree import FALSE, TRUE, Or
from headrace.workers.detect.rules.fields import field_of
from headrace.workers.detect.rules.matching import Matcher
from headrace.workers.detect.rules.taxonomy import Constant, Meaning, Plain
from headrace.workers.detect.rules.values import text

FLAGS = {"IGNORECASE": "i", "MULTILINE": "m", "DOTALL": "s"}
NO_HEX = re.compile(r"[^0-9a-f*?]")


Placeholders = Mapping[str, tuple[str, ...]]
"""Values by name of the placeholder."""
HIDDEN = re.compile("^_filt_[a-z]{10}_")
ESCAPED = re.compile("_x(2d|2e)_")
ENCODINGS = frozenset({"base64", "base64offset", "wide", "utf16", "utf16le", "utf16be"})


class Dead(Exception):
    """A part of a rule that can never be decided here."""


class SigmaRefused(Exception):
    """A modifier or value that headrace cannot evaluate as Sigma defines it. The rule is refused."""


def modifiers(item: Any) -> list[str]:
    from sigma.modifiers import modifier_mapping

    names: dict[type, str] = {}
    for name, each in modifier_mapping.items():
        names.setdefault(each, name)
    return [names.get(each, each.__name__) for each in item.modifiers]


def repeated_modifier(data: str) -> str:
    """A key in the YAML of a rule that has the same modifier twice; "" if there is none, or if the text is not YAML."""
    try:
        waiting = list(yaml.compose_all(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except yaml.YAMLError as error:
        if "nesting" in str(error):
            raise
        return ""  # pySigma reports the reason
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                words = str(key.value).split("|")[1:] if isinstance(key, yaml.ScalarNode) else ()
                if len(set(words)) < len(words):
                    return str(key.value)
                waiting += [key, value]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
    return ""


def shown_name(selection: str) -> str:
    """The name of a selection as its file has it (workers/detect/rules/sigma_files.py). For a filter, without the
    random prefix that pySigma adds.
    """
    return ESCAPED.sub(lambda found: chr(int(found[1], 16)), HIDDEN.sub("filter ", selection))


def encodes_placeholders(applied: list[str]) -> str:
    """The modifier that would encode a placeholder instead of its values; "" if there is none."""
    after = applied[applied.index("expand") + 1 :] if "expand" in applied else []
    return next((name for name in after if name in ENCODINGS), "")


def expanded(value: Any, values: Placeholders) -> list[Any]:
    """One value for each combination of the values of its placeholders. SigmaRefused if a placeholder has no values."""
    from sigma.types import Placeholder, SigmaExpansion, SigmaRegularExpression, SigmaString

    def of(placeholder: Placeholder) -> Iterator[SigmaString]:
        if placeholder.name not in values:
            raise SigmaRefused(f"no file given has values for %{placeholder.name}% (docs: signatures, placeholders)")
        yield from map(SigmaString, values[placeholder.name])

    if isinstance(value, SigmaExpansion):
        return [SigmaExpansion([each for inner in value.values for each in expanded(inner, values)])]
    if isinstance(value, SigmaString | SigmaRegularExpression) and value.contains_placeholder():
        return list(value.replace_placeholders(of))
    return [value]


def written(item: Any) -> str:
    """A field with its modifiers, as a rule writes it."""
    return "|".join((item.field or "keywords", *modifiers(item)))


def value_node(value: Any, meaning: Meaning, keyword: bool) -> Node:
    from sigma.types import SigmaExpansion

    if isinstance(value, SigmaExpansion):  # windash, base64offset: any of the values, even with `all`
        return Or(tuple(value_node(each, meaning, keyword) for each in value.values))
    _evaluable(value)
    if isinstance(meaning, Constant):
        test = _test("constant", value, keyword, False)
        return _constant(test, meaning.value)
    assert isinstance(meaning, Plain)
    test = _test(meaning.name, value, keyword, meaning.number)
    if test.operator != "re" and any("\0" in str(each) for each in test.values):
        return FALSE  # utf16 and similar encodings: a text from the kernel never contains a NUL
    if meaning.words and not any(_constant(test, word) == TRUE for word in meaning.words):
        return FALSE
    if meaning.name.endswith("@hex") and any(NO_HEX.search(str(v).lower()) for v in test.values):
        return FALSE
    return test


def reference_node(value: Any, meaning: Plain | Constant, other: Plain | Constant, nocase: bool) -> Node:
    """A comparison of two fields. If one is constant, a test of the other field, or a constant."""
    how = {(0, 0): "equals", (1, 1): "contains", (1, 0): "startswith", (0, 1): "endswith"}
    operator = how[int(value.starts_with), int(value.ends_with)]
    if isinstance(other, Constant):
        test = Test(getattr(meaning, "name", ""), operator, (other.value,), nocase=nocase)
        return _constant(test, meaning.value) if isinstance(meaning, Constant) else test
    if isinstance(meaning, Constant):
        raise SigmaRefused("the modifier fieldref: this field is always the same, put it behind the colon")
    return comparison(meaning.name, operator, other.name, nocase)


def _evaluable(value: Any) -> None:
    """Refused for values that would have a different meaning here without notice."""
    from sigma import types

    inner = getattr(value, "number", None) if isinstance(value, types.SigmaCompareExpression) else value
    if isinstance(inner, types.SigmaTimestampPart):
        raise SigmaRefused(
            f"the modifier {inner.timestamp_part.name.lower()}: headrace's fields are not points in time"
        )


def _constant(test: Test, value: str) -> Node:
    from headrace.bpf.tables.catalogue import catalogue

    if test.operator == "exists":
        return TRUE if test.values[0] else FALSE
    text_field = field_of(catalogue().by_name["sched_process_exec"], "process.name")
    return TRUE if Matcher(text_field, [test]).verdicts(text(value)).true else FALSE


def _test(name: str, value: Any, keyword: bool, number: bool) -> Test:
    """One value as a test. Dead if the kind of value has no meaning here; SigmaRefused if a number cannot be
    compared.
    """
    from sigma import types

    if value is None or isinstance(value, types.SigmaNull):
        return Test(name, "exists", (False,))
    if isinstance(value, types.SigmaExists):
        return Test(name, "exists", (bool(value.exists),))
    if isinstance(value, types.SigmaCIDRExpression):
        return Test(name, "cidr", (str(value.cidr),))
    if isinstance(value, types.SigmaRegularExpression):
        return Test(name, "re", (_flagged(value),))
    if isinstance(value, types.SigmaCompareExpression):
        operator = value.op.name.lower()
        return Test(name.partition("@")[0], operator, (_whole(str(value.number), operator),))
    if isinstance(value, types.SigmaBool):
        return Test(name, "equals", (str(value).lower(),), nocase=True)
    if isinstance(value, types.SigmaNumber):
        plain: Scalar = _whole(str(value), "equals") if number else str(value)
        return Test(name, "equals", (plain,))
    if not isinstance(value, types.SigmaString):
        raise Dead(f"values of the kind {type(value).__name__}")
    cased = isinstance(value, types.SigmaCasedString)
    if number:
        return Test(name, "equals", (str(value),))
    return _string(name, value, keyword, cased)


def _flagged(value: Any) -> str:
    flags = "".join(sorted(FLAGS[flag.name] for flag in value.flags))
    # In Sigma, `.` does not match a newline unless the rule has the flag `s`. headrace's own rules are the other way
    # round.
    return f"(?{flags}{'' if 's' in flags else '-s'}){value.regexp}"


def _whole(number: str, operator: str) -> int:
    """The integer that gives the same verdicts on integers. SigmaRefused if there is none, or beyond 64 bits."""
    found = Decimal(number)
    if not found.is_finite() or abs(found) >= 1 << 64:
        raise SigmaRefused(f"{number} is not a number of 64 bits")
    if found == int(found):
        return int(found)
    if operator == "equals":
        raise SigmaRefused(f"{number} is not a whole number")
    return floor(found) if operator in ("gt", "lte") else ceil(found)


def _string(name: str, value: Any, keyword: bool, cased: bool) -> Test:
    from sigma.types import SpecialChars

    parts = list(value.s)
    many = SpecialChars.WILDCARD_MULTI
    begins, ends = parts[:1] == [many] or keyword, parts[-1:] == [many] or keyword
    inner = [p for i, p in enumerate(parts) if not (p is many and i in (0, len(parts) - 1))]
    if all(isinstance(p, str) for p in inner) and (literal := "".join(inner)):
        how = {(0, 0): "equals", (1, 1): "contains", (0, 1): "startswith", (1, 0): "endswith"}[int(begins), int(ends)]
        return Test(name, how, (literal,), nocase=not cased)
    if not parts:
        return Test(name, "equals", ("",), nocase=not cased)
    if not inner:
        return Test(name, "exists", (True,))
    glob = "".join(
        re.sub(r"([*?\[\]\\])", r"\\\1", p) if isinstance(p, str) else "*" if p is many else "?" for p in parts
    )
    if keyword:
        glob = f"*{glob}*"
    return Test(name, "glob", (glob,), nocase=not cased)
