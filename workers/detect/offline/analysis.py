"""Signatures over events from JSON lines, headrace's own or Tracee's: the same engine with other columns.

The analysis follows descriptors through the events (connect, dup, close, exit, fork). If a socket is duplicated and the
input has no `socket_dup` for it, the analysis adds one, with the address known from earlier events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import msgspec
import numpy as np

from headrace.bpf.tables.catalogue import Catalogue
from headrace.config.rules import Rule
from headrace.config.thresholds import Thresholds
from headrace.workers.detect.code.bounds import SignatureResult, code_rules
from headrace.workers.detect.code.states import Given
from headrace.workers.detect.columns.view import Array, Keys, ValueColumn
from headrace.workers.detect.engine.engine import EventEngine, Verdict
from headrace.workers.detect.findings.data import DataField, data_fields, same_fields
from headrace.workers.detect.findings.lines import MAX_ANCESTORS, rule_parts, shown_image
from headrace.workers.detect.findings.undecided import UNDECIDED
from headrace.workers.detect.findings.undecided import what as undecided
from headrace.workers.detect.offline.flat import FlatEvent
from headrace.workers.detect.offline.inputs import DUPLICATES, LinesRead, said
from headrace.workers.detect.offline.json_events import is_own, of_line
from headrace.workers.detect.offline.lineages import NOTHING, Processes, Told
from headrace.workers.detect.rules.compiled import compile_rules
from headrace.workers.detect.rules.fields import Field
from headrace.workers.detect.rules.values import Value, number_of

MAX_PROCESSES = 65536
MAX_LINE_BYTES = 16 << 20
MAX_DEPTH = 64
"""Levels of nesting in the values of a line."""
CONNECTS = {"security_socket_connect": ("sockfd", "remote_addr"), "connect": ("sockfd", "addr")}
ENDS = ("sched_process_exit", "exit_group")


Fields = dict[tuple[int, int], list[DataField]]
"""Data fields by rule and event."""


class TooLong(BaseException):
    """A signature in Python did not return in time."""


class LineError(Exception):
    """A line that is not an event."""


class Indexed(NamedTuple):
    """An event with the number and the contents of its line."""

    line: int
    event: FlatEvent
    raw: Mapping[str, Any]
    told: Told = NOTHING
    """The state of its process, from this line and earlier ones."""

    @property
    def time_ns(self) -> int:
        """The timestamp of the line; 0 if it has none."""
        return number_of(self.raw.get("timestamp"), "u64", None) or 0


def _depth(value: object) -> int:
    """Levels of nesting in a JSON value."""
    level, depth = [value], 0
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        level = [part for each in level for part in (each.values() if isinstance(each, dict) else each)]
    return depth


class FlatColumn(ValueColumn):
    """A field of flat events. The key is the value itself."""

    def __init__(self, field: Field) -> None:
        self._field = field

    def keys(self, view: Any, chosen: Array) -> Keys:
        return [view[i].event.value(self._field) for i in chosen.tolist()]

    def value(self, key: Any) -> Value:
        return key  # type: ignore[no-any-return]


class Descriptors:
    """Tracks which descriptors of which processes are connected sockets."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._socket_dup = catalogue.by_name["socket_dup"]
        self._known: dict[int, dict[int | None, Any]] = {}
        self._told: dict[int, tuple[int, int]] = {}
        self._waiting: dict[int | None, Indexed] = {}

    def follow(self, one: Indexed) -> Iterator[Indexed]:
        """Yields the event, and a `socket_dup` if it duplicates a socket and no other event reports that. In headrace's
        own lines `socket_dup` follows its call, so the added event is held back until the next event of the process.
        """
        name, event = one.event.event.name, one.event
        pid = _number(event.values.get("process.pid", event.values.get("process.ns_pid")))
        waits = self._waiting.pop(pid, None)
        if waits and not (name == "socket_dup" and _pair(event) == _pair(waits.event)):
            yield waits
        yield one
        if pid is None:
            return
        if name in CONNECTS:
            fd, address = (event.args.get(each) for each in CONNECTS[name])
            if (number := _number(fd)) is not None and address is not None:
                self._table(pid)[number] = address
        elif name in DUPLICATES:
            for made in self._duplicate(one, pid):
                if is_own(one.raw):
                    self._waiting[pid] = made
                else:
                    yield made
        elif name == "close":
            self._known.get(pid, {}).pop(_number(event.args.get("fd")), None)
        elif name in ENDS:
            self._known.pop(pid, None)
            self._told.pop(pid, None)
        elif name == "sched_process_fork":
            child = _number(event.args.get("child_pid"))
            if child is not None and child != pid and pid in self._known:
                self._table(child).update(self._known[pid])

    def rest(self) -> Iterator[Indexed]:
        """The events still held back at the end of the input."""
        yield from self._waiting.values()
        self._waiting.clear()

    def _table(self, pid: int) -> dict[int | None, Any]:
        if pid not in self._known and len(self._known) >= MAX_PROCESSES:
            del self._known[next(iter(self._known))]
        return self._known.setdefault(pid, {})

    def _duplicate(self, one: Indexed, pid: int) -> Iterator[Indexed]:
        event = one.event
        args = event.args
        old = _number(args.get("oldfd", args.get("fildes")))
        new = event.retval if event.event.name == "dup" else _number(args.get("newfd"))
        if old is None or new is None or new < 0:
            return
        address = self._known.get(pid, {}).get(old)
        if event.event.name == "socket_dup":
            self._told[pid] = (old, new)
            address = args.get("remote_addr", address)
        elif (event.retval or 0) < 0:
            return
        if address is None:
            self._known.get(pid, {}).pop(new, None)
            return
        self._table(pid)[new] = address
        if event.event.name != "socket_dup" and self._told.pop(pid, None) != (old, new):
            args = {"oldfd": old, "newfd": new, "remote_addr": address}
            yield Indexed(one.line, FlatEvent(self._socket_dup, args, None, event.values), one.raw, one.told)


def _pair(event: FlatEvent) -> tuple[int | None, int | None]:
    return _number(event.args.get("oldfd")), _number(event.args.get("newfd"))


def _number(given: object) -> int | None:
    return number_of(given, "s32", None)


class Analysis:
    """A set of rules over JSON lines."""

    def __init__(
        self,
        rules: Sequence[Rule],
        catalogue: Catalogue,
        report: Callable[[str], None] = lambda text: None,
        bounded: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """`report` receives errors in signatures in Python. They run in the context `bounded`, which raises TooLong."""
        rules = (*rules, UNDECIDED)
        self._rules, self._catalogue, self._bounded = rules, catalogue, bounded
        self._engines = {event: EventEngine(of, FlatColumn) for event, of in compile_rules(rules, catalogue).items()}
        self._descriptors, self._processes = Descriptors(catalogue), Processes()
        self._read = LinesRead(rules, catalogue)
        self._parts = [rule_parts(rule, 1) for rule in rules]
        self._fields: Fields = {}
        self._same: Fields = {}
        self._thresholds = Thresholds()
        self._code = code_rules(rules)
        self._report = report

    def read(self, index: int, line: bytes) -> Indexed | None:
        """The event of a line; None if the catalogue does not know it. LineError if the line is not an event, is too
        long or is nested too deeply.
        """
        if len(line) > MAX_LINE_BYTES:
            raise LineError(f"longer than {MAX_LINE_BYTES >> 20} MiB")
        try:
            raw = msgspec.json.decode(line)
            if not isinstance(raw, dict):
                raise LineError("not a JSON object")
            if line.count(b"[") + line.count(b"{") > MAX_DEPTH and _depth(raw) > MAX_DEPTH:
                raise RecursionError
            told = self._processes.of(raw) if is_own(raw) else NOTHING
            event = of_line(raw, self._catalogue, told)
        except RecursionError as error:
            raise LineError(f"nested more than {MAX_DEPTH} deep") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise LineError(f"not JSON: {error}") from error
        except ValueError as error:
            raise LineError(str(error)) from error
        if event is None:
            return None
        self._read.take(event, raw, told)
        return Indexed(index, event, raw, told)

    def remarks(self) -> list[str]:
        """For people: which rules the lines could not answer."""
        return said(self._read.gaps(), len(self._rules) - 1)

    def of_examples(self, events: Sequence[FlatEvent]) -> list[str]:
        """The ids of the rules that the last of these events completes."""
        found = self.findings([Indexed(i, event, {}) for i, event in enumerate(events)])
        return [one["signatureID"] for one in found if one["eventIndex"] == len(events) - 1]

    def findings(self, events: Sequence[Indexed], last: bool = True) -> Iterator[dict[str, Any]]:
        """The findings in some events, in order. `last`: no other events follow."""
        batch = [each for event in events for each in self._descriptors.follow(event)]
        batch += self._descriptors.rest() if last else ()
        found: list[tuple[int, int]] = []
        open_: dict[int, Verdict] = {}
        ids = np.array([each.event.event.id for each in batch], np.int64)
        for event_id in np.unique(ids).tolist():
            engine = self._engines.get(event_id)
            if engine is None:
                continue
            chosen = np.flatnonzero(ids == event_id)
            verdicts = engine.match(batch, chosen)
            for at in np.flatnonzero(verdicts).tolist():
                verdict, row = engine.verdicts[int(verdicts[at])], int(chosen[at])
                found += [(row, rule) for rule in verdict.matched]
                if verdict.undecided:
                    open_[row] = verdict
        said = self._ask(batch, found)
        position = self._rules.index(UNDECIDED)
        for row, verdict in open_.items():
            found.append((row, position))
            signatures = [self._rules[p].id for p in verdict.undecided]
            said[row, position] = SignatureResult(undecided(signatures, list(verdict.fields)))
        for at, rule in sorted(found):
            answer = said.get((at, rule))
            if answer is None and rule not in self._code:
                answer = SignatureResult(self._data(batch[at], rule))
            if answer is None:
                continue
            reached = self._reached(batch[at], rule)
            if reached is not None:
                yield self._finding(batch[at], rule, answer) | reached

    def _reached(self, one: Indexed, position: int) -> dict[str, Any] | None:
        """The threshold's part of a finding, {} if its rule has none; None if the threshold is not reached."""
        rule = self._rules[position]
        if rule.threshold is None:
            return {}
        same = self._fields_of(self._same, same_fields(rule), position, one)
        group = hash((position, msgspec.json.encode(same)))
        reached = self._thresholds.take(one.time_ns, group, rule.threshold.count, rule.threshold.within_ms * 10**6)
        return reached and {"threshold": reached.parts}

    def _ask(
        self, batch: Sequence[Indexed], found: Sequence[tuple[int, int]]
    ) -> dict[tuple[int, int], SignatureResult]:
        said: dict[tuple[int, int], SignatureResult] = {}

        def shown(at: Sequence[int]) -> list[Mapping[str, Any]]:
            return [batch[i].raw for i in at]

        for position, code in self._code.items():
            mine = sorted(at for at, rule in found if rule == position)
            events = [self._given(at, batch[at], position) for at in mine]
            try:
                with self._bounded():
                    answers = code.look(events, self._report, shown)
            except TooLong:
                code.switch_off()
                self._report(f"{code.rule.file}: {code.rule.id}: did not return; it is off now")
                continue
            said |= {(e.at, position): answer for e, answer in zip(events, answers, strict=True) if answer.result}
        return said

    def _given(self, at: int, one: Indexed, position: int) -> Given:
        event, values = one.event, one.event.values
        pid = _number(values.get("process.pid", values.get("process.ns_pid")))
        child = _number(event.args.get("child_pid"))
        container = str(values.get("container.id") or "")
        fields = self._of_event(self._fields, self._rules[position], position, one)
        data: dict[str, object] = {d.name: d.shown(event.value(d.field)) for d in fields}
        return Given(at, event.event.name, one.time_ns, pid, container, data, child)

    def _data(self, one: Indexed, position: int) -> dict[str, object]:
        return self._fields_of(self._fields, self._rules[position], position, one)

    def _fields_of(self, known: Fields, rule: Rule, position: int, one: Indexed) -> dict[str, object]:
        found = self._of_event(known, rule, position, one)
        return {name: said for d in found for name, said in d.said(one.event.value(d.field)).items()}

    def _of_event(self, known: Fields, rule: Rule, position: int, one: Indexed) -> list[DataField]:
        key = position, one.event.event.id
        if key not in known:
            known[key] = data_fields(rule, one.event.event)
        return known[key]

    def _finding(self, one: Indexed, position: int, answer: SignatureResult) -> dict[str, Any]:
        raw, caused = one.raw, answer.caused
        before = caused.events() if caused else []
        omitted = {"eventsOmitted": more} if caused and (more := caused.left_out()) else {}
        shown = raw
        if "lineage" in raw:  # belongs to the line, not to the event
            shown = {key: value for key, value in raw.items() if key != "lineage"}
        return {
            "timestamp": one.time_ns if "timestamp" in raw else None,
            **self._parts[position],
            "eventIndex": one.line,
            **_subject(one),
            "data": answer.result if isinstance(answer.result, Mapping) else {},
            "events": [*before, shown],
            **omitted,
            "complete": True,
            "gaps": [],
        }


def _subject(one: Indexed) -> dict[str, Any]:
    """The process, ancestors and container of an event, as a run's findings show them.

    Lines that headrace did not write provide only part of it.
    """
    raw, own = one.raw, is_own(one.raw)
    about: dict[str, Any] = {
        "pid": raw.get("hostProcessId", raw.get("processId")),
        "tid": raw.get("hostThreadId", raw.get("threadId")),
        "ppid": raw.get("hostParentProcessId", raw.get("parentProcessId")),
        "nsPid": raw.get("processId"),
        **_copied(raw, "processName", "name"),
    }
    if own:
        about |= shown_image(one.told.image)
    else:
        executable = raw.get("executable")
        about |= {"path": executable.get("path") if isinstance(executable, dict) else None, "commandLine": None}
    about["uid"] = raw.get("userId")
    if own:
        about |= _copied(raw["context"], "user", "user") if "user" in raw["context"] else {}
        about["startTime"] = raw.get("processStartTime")
    above = [{"pid": pid, **shown_image(image)} for pid, image in one.told.above[:MAX_ANCESTORS]]
    host = _copied(raw, "hostName", "hostName") if "hostName" in raw else {"hostName": ""}
    return {**host, "process": about, "ancestors": above, "container": _container(raw, own)}


def _copied(given: Mapping[str, Any], key: str, name: str) -> dict[str, Any]:
    """A text and its base64 bytes, under another name."""
    exact = given.get(f"{key}Base64")
    return {name: given.get(key)} | ({} if exact is None else {f"{name}Base64": exact})


def _container(raw: Mapping[str, Any], own: bool) -> dict[str, Any]:
    if not raw.get("containerId"):
        return {}
    if not own or not isinstance(raw.get("container"), dict):
        return {"id": raw["containerId"]}
    pod = {"pod": {"name": raw.get("podName"), "namespace": raw.get("podNamespace"), "uid": raw.get("podUID")}}
    return {**raw["container"], **(pod if raw.get("podName") else {}), "enrichment": raw.get("enrichment", "off")}
