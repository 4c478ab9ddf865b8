"""Signatures as rules: reads YAML files, and checks everything that does not depend on events.

A file has one signature, a list of them, or several documents; a mapping `lists` defines shared lists. For examples of
all keys see config/signatures/, for the language docs/reference/signatures.md. Fields and events are checked when a
rule is compiled (workers/detect/rules/compiled.py); those errors name the line as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from headrace.bpf.tables.catalogue import did_you_mean
from headrace.config.conditions import ConditionError, Lists, Node, Scalar, read
from headrace.config.files import FileError, below, text
from headrace.config.located import MAX_DEPTH, Located, LocatedError, documents
from headrace.config.thresholds import Threshold, threshold_of
from headrace.config.tree import TRUE, conjunction

SEVERITIES = ("info", "low", "medium", "high", "critical")
SCOPES = ("any", "host", "container")
SHIPPED = Path(__file__).resolve().parent / "signatures"
CODE, YAML = ".py", (".yaml", ".yml")
IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
KEYS = (
    "id",
    "name",
    "title",
    "description",
    "severity",
    "mitre",
    "tags",
    "events",
    "condition",
    "scope",
    "threshold",
    "data",
    "enabled",
    "examples",
    "author",
    "references",
    "unseen",
)
EXAMPLE_KEYS = ("event", "events", "args", "retval", "process", "parent", "ancestors", "container")
MAX_CODE = 256
"""Signatures in Python per set, including those that ship."""
MAX_RULES, MAX_VALUES, MAX_TEXT = 10_000, 32_768, 8 << 20
"""Bounds of a set besides what ships: signatures, values in all of them, and characters of these values."""


class RuleError(Exception):
    """A rule that cannot be used: its file and line, and the reason."""

    def __init__(self, file: str, line: int, rule: str, why: str) -> None:
        place = f"{file}:{line}" if line else file
        super().__init__(f"{place}: {rule}: {why}" if rule else f"{place}: {why}")
        self.file, self.line, self.rule, self.why = file, line, rule, why


class Mitre(msgspec.Struct, frozen=True):
    """The place in ATT&CK."""

    tactic: str = ""
    technique: str = ""
    id: str = ""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One signature. `events`: event -> the condition on it."""

    id: str
    name: str
    title: str = ""
    description: str = ""
    severity: str = "medium"
    mitre: Mitre = Mitre()
    tags: tuple[str, ...] = ()
    scope: str = "any"
    events: dict[str, Node] = {}
    threshold: Threshold | None = None
    data: dict[str, str] = {}
    """Data fields of a finding: name -> field."""
    enabled: bool = True
    author: str = ""
    references: tuple[str, ...] = ()
    level: str = ""
    status: str = ""
    dead: tuple[str, ...] = ()
    """Parts of the rule that can never match here, each with its reason, and the entries of `unseen`."""
    lacking: str = ""
    """Why no part of the rule can match here; "" if some part can."""
    code: str = ""
    """For a signature in Python: the name of its class."""
    state: str = ""
    shared: tuple[str, ...] = ()
    """Events of the rule that every worker evaluates."""
    source: str = ""
    """For a signature in Python: the text of its file when it was loaded."""
    file: str = ""
    line: int = 0


class Example(msgspec.Struct, frozen=True):
    """An example for a rule: consecutive events, of which the last one must match (`matches`) or must not."""

    events: tuple[dict[str, Any], ...]
    matches: bool
    line: int = 0


class Loaded(msgspec.Struct):
    """The result of loading files: rules with their examples, and the errors of what was refused."""

    rules: list[Rule] = []
    examples: dict[str, tuple[Example, ...]] = {}
    refused: list[RuleError] = []


def files_of(folder: Path, code: bool = False) -> list[Path]:
    """The YAML files (with `code`, the Python files) in a folder and below it, sorted; or a file itself. FileError."""
    found = list(below(folder))
    if found == [folder]:
        return found if (folder.suffix == CODE) == code else []
    return [each for each in found if each.suffix in ((CODE,) if code else YAML)]


def load(folders: Sequence[Path]) -> Loaded:
    """Load all signatures in YAML from files and folders. Errors are in `refused`; the other signatures are loaded."""
    found = Loaded([], {}, [])
    parsed: list[tuple[str, Located]] = []
    for folder in folders:
        try:
            files = files_of(folder)
            if not files and not files_of(folder, code=True):
                raise FileError("no signature is in it (*.yaml, *.yml, *.py)")
        except FileError as error:
            found.refused.append(RuleError(str(folder), 0, "", str(error)))
            continue
        for path in files:
            parsed += _parse(path, found)
    lists = _lists(parsed, found)
    for file, located in parsed:
        for each in located.value if isinstance(located.value, list) else [located]:
            if not (isinstance(each.value, dict) and set(each.value) == {"lists"}):
                _add(file, each, lists, found)
    return found


def text_of(path: Path) -> str:
    """The text of a file. RuleError if it cannot be read."""
    try:
        return text(path)
    except FileError as error:
        raise RuleError(shown_path(path), 0, "", str(error)) from error


def _parse(path: Path, found: Loaded) -> Iterator[tuple[str, Located]]:
    name = shown_path(path)
    try:
        parsed = list(documents(text_of(path)))
    except RuleError as error:
        found.refused.append(error)
    except LocatedError as error:
        found.refused.append(RuleError(name, error.line, "", error.why))
    else:
        documents_of = [(name, document) for document in parsed if document.value not in (None, [])]
        if not documents_of:
            found.refused.append(RuleError(name, 0, "", "no signature is in it"))
        yield from documents_of


def shown_path(path: Path) -> str:
    """The name of a rule's file in messages."""
    return f"signatures/{path.name}" if path.parent == SHIPPED else str(path)


def _lists(parsed: Sequence[tuple[str, Located]], found: Loaded) -> Lists:
    """The shared lists, with the lists that they contain expanded. A list that contains itself is refused."""
    raw: dict[str, tuple[str, Located]] = {}
    for file, document in parsed:
        for each in document.value if isinstance(document.value, list) else [document]:
            if isinstance(each.value, dict) and "lists" in each.value:
                body = each.value["lists"]
                if not isinstance(body.value, dict) or len(each.value) > 1:
                    found.refused.append(RuleError(file, body.line, "", "lists: a mapping of names to lists, alone"))
                    continue
                for name, values in body.value.items():
                    if name in raw:
                        found.refused.append(RuleError(file, values.line, "", f"the list {name} is there already"))
                    raw.setdefault(name, (file, values))
    done: dict[str, tuple[Scalar, ...]] = {}
    for name in raw:
        try:
            _expand(name, raw, done, ())
        except ConditionError as error:
            found.refused.append(RuleError(raw[name][0], error.line, "", f"list {name}: {error.why}"))
    return done


def _expand(
    name: str, raw: dict[str, tuple[str, Located]], done: dict[str, tuple[Scalar, ...]], above: tuple[str, ...]
) -> tuple[Scalar, ...]:
    if name in done:
        return done[name]
    values = raw[name][1]
    if len(above) > MAX_DEPTH:
        raise ConditionError(values.line, f"lists are nested more than {MAX_DEPTH} deep")
    if name in above:
        raise ConditionError(values.line, f"contains itself: {' -> '.join((*above[above.index(name) :], name))}")
    if not isinstance(values.value, list):
        raise ConditionError(values.line, "a list is wanted")
    collected: list[Scalar] = []
    for each in values.value:
        if isinstance(each.value, dict) and set(each.value) == {"list"}:
            other = each.value["list"].value
            if not isinstance(other, str) or other not in raw:
                raise ConditionError(each.line, f"no such list: {each.value['list'].plain()}")
            collected += _expand(other, raw, done, (*above, name))
        elif isinstance(each.value, str | int | bool):
            collected.append(each.value)
        else:
            raise ConditionError(each.line, f"not a value: {each.plain()!r}")
        if len(collected) > MAX_VALUES:
            raise ConditionError(values.line, f"more than {MAX_VALUES} values, those of its lists included")
    done[name] = tuple(collected)
    return done[name]


def taken(other: Rule) -> str:
    """The message for a rule whose id another rule already has."""
    return f"another rule has this id: {other.file}" + (f":{other.line}" if other.line else "")


def _add(file: str, located: Located, lists: Lists, found: Loaded) -> None:
    name = ""
    try:
        reader = _RuleReader(file, located, lists)
        name = reader.id
        for other in found.rules:
            if other.id == name:
                reader.refuse("id", taken(other))
        rule, examples = reader.rule(), reader.examples()
    except RuleError as error:
        found.refused.append(error)
    except ConditionError as error:
        found.refused.append(RuleError(file, error.line, name, error.why))
    else:
        found.rules.append(rule)
        found.examples[rule.id] = examples


class _RuleReader:
    """Converts one mapping of a file to a rule."""

    def __init__(self, file: str, located: Located, lists: Lists) -> None:
        self._file, self._lists, self.id = file, lists, ""
        if not isinstance(located.value, dict):
            raise RuleError(file, located.line, "", "a signature is a mapping")
        self._parts, self._lines, self._line = located.value, located.keys or {}, located.line
        if "id" in self._parts and isinstance(self._parts["id"].value, str):
            self.id = self._parts["id"].value
        for key in self._parts:
            if key not in KEYS:
                self.refuse(key, f"no such key: {key}" + did_you_mean(key, KEYS))
        for key in ("id", "name", "events"):
            if key not in self._parts:
                self.refuse(key, f"the key {key} is missing")
        if not IDENTIFIER.fullmatch(self._text("id")):
            self.refuse("id", "letters, digits, dots, dashes and underscores, 128 at most")

    def refuse(self, key: str, why: str) -> NoReturn:
        """Raise RuleError for a key."""
        raise RuleError(self._file, self._lines.get(key, self._line), self.id, why)

    def rule(self) -> Rule:
        """The rule without its examples."""
        return Rule(
            id=self.id,
            name=self._text("name"),
            title=self._text("title"),
            description=self._text("description"),
            severity=self._choice("severity", SEVERITIES, "medium"),
            mitre=self._mitre(),
            tags=self._texts("tags"),
            scope=self._choice("scope", SCOPES, "any"),
            events=self._events(),
            threshold=self._threshold(),
            data=self._data(),
            enabled=self._switch(),
            author=self._text("author"),
            references=self._texts("references"),
            dead=self._texts("unseen"),
            file=self._file,
            line=self._line,
        )

    def _get(self, key: str, kind: type, what: str, otherwise: Any) -> Any:
        part = self._parts.get(key)
        if part is None or part.value is None:
            return otherwise
        if not isinstance(part.value, kind):
            self.refuse(key, f"{key}: {what} is wanted")
        return part.value

    def _text(self, key: str) -> str:
        return str(self._get(key, str, "text", ""))

    def _texts(self, key: str) -> tuple[str, ...]:
        parts = self._get(key, list, "a list of texts", [])
        if not all(isinstance(part.value, str) for part in parts):
            self.refuse(key, f"{key}: a list of texts is wanted")
        return tuple(part.value for part in parts)

    def _choice(self, key: str, known: Sequence[str], otherwise: str) -> str:
        value = self._text(key) or otherwise
        if value not in known:
            self.refuse(key, f"{key}: {' '.join(known)}, not {value}" + did_you_mean(value, known))
        return value

    def _switch(self) -> bool:
        return bool(self._get("enabled", bool, "true or false", True))

    def _mitre(self) -> Mitre:
        parts = self._get("mitre", dict, "a mapping", {})
        for key, part in parts.items():
            if key not in ("tactic", "technique", "id") or not isinstance(part.value, str):
                self.refuse("mitre", f"mitre: tactic, technique and id, as texts; not {key}")
        return Mitre(**{key: part.value for key, part in parts.items()})

    def _threshold(self) -> Threshold | None:
        part = self._parts.get("threshold")
        if part is None:
            return None
        try:
            return threshold_of(part.plain())
        except ValueError as error:
            self.refuse("threshold", str(error))

    def _events(self) -> dict[str, Node]:
        part = self._parts["events"]
        common = read(self._parts["condition"], self._lists) if "condition" in self._parts else TRUE
        if isinstance(part.value, list) and part.value and all(isinstance(e.value, str) for e in part.value):
            return {each.value: common for each in part.value}
        if not isinstance(part.value, dict) or not part.value:
            self.refuse("events", "events: a list of events, or a mapping of events to conditions")
        return {name: conjunction(read(each, self._lists), common) for name, each in part.value.items()}

    def _data(self) -> dict[str, str]:
        part = self._parts.get("data")
        if part is None:
            return {}
        if isinstance(part.value, list) and all(isinstance(e.value, str) for e in part.value):
            return {each.value: each.value for each in part.value}
        if not isinstance(part.value, dict) or not all(isinstance(e.value, str) for e in part.value.values()):
            self.refuse("data", "data: a list of fields, or a mapping of names to fields")
        return {name: each.value for name, each in part.value.items()}

    def examples(self) -> tuple[Example, ...]:
        """The examples that must match, and the near misses."""
        parts = self._get("examples", dict, "a mapping of match and near_miss", {})
        found: list[Example] = []
        for key, part in parts.items():
            if key not in ("match", "near_miss") or not isinstance(part.value, list):
                self.refuse("examples", f"examples: match and near_miss, each a list; not {key}")
            found += [self._example(each, key == "match") for each in part.value]
        return tuple(found)

    def _example(self, located: Located, matches: bool) -> Example:
        value = located.plain()
        events = value if isinstance(value, list) else [value]
        for event in events:
            if not isinstance(event, dict) or not isinstance(event.get("event"), str):
                raise RuleError(self._file, located.line, self.id, "an example is an event, or a list of them")
            for key in event:
                if key not in EXAMPLE_KEYS:
                    raise RuleError(self._file, located.line, self.id, f"an example has no key {key}")
        return Example(tuple(events), matches, located.line)
