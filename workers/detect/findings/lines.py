"""Findings as JSON, one object per line (docs/finding.schema.json): what a rule found, the process, and the event.

As for lines of events (workers/views/pieces.py), a finding is joined from pieces, most of which are cached:

    time | rule | process | data fields | the event's own line | gaps

Each line has a mark (MARK) with a folding key (`fold`): a hash of generation, rule, executable, container and data
fields. Repeats are folded by this key after the workers are merged (pipeline/publish/folding.py).
"""

from __future__ import annotations

import functools
import hashlib
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np

from headrace.bpf.tables.catalogue import Catalogue, Event
from headrace.config.rules import Rule
from headrace.config.thresholds import MARK
from headrace.workers.detect.code.states import Caused
from headrace.workers.detect.columns.reading import column_of
from headrace.workers.detect.columns.subjects import command_line
from headrace.workers.detect.columns.view import View, listed
from headrace.workers.detect.engine.matches import Matched, Matches
from headrace.workers.detect.findings.bounded import bounded
from headrace.workers.detect.findings.data import data_fields, same_fields
from headrace.workers.detect.findings.gaps import NO_GAPS, Gaps, Reach
from headrace.workers.detect.findings.history import History, HistoryTurn
from headrace.workers.detect.findings.pieces import FindingPieces
from headrace.workers.detect.findings.policies import PolicyMasks
from headrace.workers.enrich.containers import Describe, nobody, of_finding
from headrace.workers.enrich.tree import Image, Process, ProcessTree, ancestors
from headrace.workers.enrich.users import user_name
from headrace.workers.records.blobs import argument_counts
from headrace.workers.records.rows import Contexts, Rows
from headrace.workers.views.json_lines import JsonStyle, encode, inner
from headrace.workers.views.pieces import Lines
from headrace.workers.views.style import HostFacts, said, said_user

Array = np.ndarray[Any, Any]
NOTHING_KEPT = Caused(0, (), 0)
MAX_ANCESTORS = 16
"""Ancestors shown with a finding."""


@dataclass
class RenderedFindings:
    """Findings as lines. `ends`: end of each line in `data`, i64; `row`: position of the matching row, i64; `marks`:
    MARK (config/thresholds.py).
    """

    data: bytes
    ends: Array
    row: Array
    marks: Array

    def __len__(self) -> int:
        return len(self.ends)

    def halves(self) -> tuple[RenderedFindings, RenderedFindings]:
        """Split into the first half of the lines and the rest."""
        middle = len(self) // 2
        cut = int(self.ends[middle - 1])
        columns = self.row, self.marks
        first = RenderedFindings(self.data[:cut], self.ends[:middle], *(c[:middle] for c in columns))
        return first, RenderedFindings(self.data[cut:], self.ends[middle:] - cut, *(c[middle:] for c in columns))


class _Data:
    """The data fields of one rule on one event, read from rows."""

    def __init__(self, rule: Rule, event: Event, known: FindingPieces) -> None:
        self._fields = [(data, column_of(data.field)) for data in data_fields(rule, event)]
        self._known = known

    def pieces(self, view: View, chosen: Array) -> list[str]:
        """`"name":value,...` for each chosen row."""
        columns = [self._column(i, view, chosen) for i in range(len(self._fields))]
        return [",".join(parts) for parts in zip(*columns, strict=True)] if columns else [""] * len(chosen)

    def values(self, view: View, chosen: Array) -> list[dict[str, Any]]:
        """The fields of each chosen row, as a finding shows them."""
        found: list[dict[str, Any]] = [{} for _ in range(len(chosen))]
        for data, column in self._fields:
            keys = column.keys(view, chosen)
            for one, key in zip(found, listed(keys), strict=True):
                one[data.name] = data.shown(column.value(key))
        return found

    def _column(self, number: int, view: View, chosen: Array) -> list[str]:
        data, column = self._fields[number]
        keys = column.keys(view, chosen)
        pieces = []
        for key in listed(keys):
            piece = self._known.get((self, number, key))
            if piece is None:
                piece = inner(data.said(column.value(key)))
                self._known.put((self, number, key), piece, len(piece))
            pieces.append(piece)
        return pieces


class _DataOf:
    """The data fields of a set of rules on each of their events."""

    def __init__(self, rules: Sequence[Rule], catalogue: Catalogue) -> None:
        self._rules, self._catalogue = rules, catalogue
        self._known: dict[tuple[int, int], _Data] = {}
        self._pieces = FindingPieces()

    def of(self, position: int, event: int) -> _Data:
        """The data fields of one rule on one event."""
        known = self._known.get((position, event))
        if known is None:
            known = self._known[position, event] = _Data(
                self._rules[position], self._catalogue.by_id[event], self._pieces
            )
        return known

    def pieces(self, view: View, row: Array, rule: Array) -> list[bytes]:
        """`"name":value,...` for each finding, given as a row and the rule that it matches."""
        found = [b""] * len(row)
        pairs = rule << 16 | view.rows.event[row].astype(np.int64)
        for pair in np.unique(pairs).tolist():
            mine = np.flatnonzero(pairs == pair)
            pieces = self.of(pair >> 16, pair & 0xFFFF).pieces(view, row[mine])
            for i, piece in zip(mine.tolist(), pieces, strict=True):
                found[i] = piece.encode("utf-8", "replace")
        return found


class FindingLines:
    """Renders the findings of a set of rules. One per worker and generation."""

    def __init__(
        self,
        rules: Sequence[Rule],
        catalogue: Catalogue,
        facts: HostFacts,
        tree: ProcessTree,
        gaps: Gaps,
        generation: int = 1,
        secret: bytes = b"",
        hidden: Sequence[str] = (),
        history: History | None = None,
        describe: Describe = nobody,
        policies: PolicyMasks | None = None,
    ) -> None:
        """`secret`: the key of the hash for folding keys; without it, a traced process could produce collisions. It is
        the same in all workers, and b"" disables folding. `history`: the source of `before` in findings.
        """
        self.cut = 0
        """Findings that were shortened since the counter was last taken."""
        self._history, self._policies = history, policies
        self._rules, self._catalogue, self._tree, self._gaps = rules, catalogue, tree, gaps
        style = JsonStyle(
            facts, executable=tree.executable, describe=describe, claims=policies.claims if policies else ()
        )
        self._describe = describe
        self._events, self._style = Lines(catalogue, style, hidden=hidden), style
        self._counts = argument_counts(catalogue)
        self._folds = [f"{generation} {rule.id}".encode() for rule in rules]
        self._pieces = [b"," + encode(rule_parts(rule, generation))[1:-1].encode() for rule in rules]
        self._thresholds = {i: rule.threshold for i, rule in enumerate(rules) if rule.threshold}
        self._data = _DataOf(rules, catalogue)
        # A signature in Python returns its data itself.
        self._shown = _DataOf([msgspec.structs.replace(r, data={}) if r.code else r for r in rules], catalogue)
        self._same = _DataOf([same_fields(rule) for rule in rules], catalogue)
        self._who = FindingPieces()
        self._generation = -1
        self._secret = secret

    def render(self, rows: Rows, contexts: Contexts, matches: Matches, part: slice) -> RenderedFindings:
        """The findings of some of the matching rows, in order."""
        at, matched = matches.rows[part], matches.rules[part]
        if not len(at):
            none = np.zeros(0, np.int64)
            return RenderedFindings(b"", none, none, np.zeros(0, MARK))
        chosen = rows.select(at)
        masks = self._masks(chosen, contexts, matched)
        events = self.event_lines(chosen, contexts)
        row = np.repeat(np.arange(len(at)), [len(m) for m in matched])
        rule = np.array([position for m in matched for position in m], np.int64)
        who = self._subjects(chosen, contexts)
        view = View(chosen, contexts, self._tree, self._counts)
        data = self._shown.pieces(view, row, rule)
        if matches.data:
            for i, pair in enumerate(zip(at[row].tolist(), rule.tolist(), strict=True)):
                if pair in matches.data:
                    data[i] = encode(matches.data[pair])[1:-1].encode("utf-8", "replace")
        times = self._style.time(chosen.time_ns, np.zeros(len(chosen), np.uint8)).tolist()
        before = self._before(rows, contexts, at) if self._history else None
        moments, rows_of, sound = chosen.time_ns.tolist(), at.tolist(), self._gaps.none
        found: list[bytes] = []
        keys = [who[r][1] for r in row.tolist()]
        marks = self._marks(view, row, rule, keys, data)
        for r, p, d in zip(row.tolist(), rule.tolist(), data, strict=True):
            subject = who[r][0]
            caused = matches.caused.get((rows_of[r], p), NOTHING_KEPT) if matches.caused else NOTHING_KEPT
            began = caused.began_ns
            if p in self._thresholds:
                began = max(1, moments[r] - self._thresholds[p].within_ms * 10**6)
            end = NO_GAPS if sound else self._gaps.piece(Reach(subject.tgid, moments[r], subject.oldest_ns, began))
            past = before[r] if before else b""
            of_rule = self._policy_piece(masks[r], p) if masks else b""
            shown = b',"data":{', d, b'},"events":[', *_earlier(caused), events[r], b"]", _omitted(caused), past, end
            parts = (times[r], self._pieces[p], subject.piece, of_rule, *shown)
            line = b"".join(parts)
            found.append(bounded(line))
            self.cut += len(found[-1]) < len(line)
        lengths = np.array([len(line) for line in found], np.int64)
        return RenderedFindings(b"".join(found), np.cumsum(lengths), at[row], marks)

    def _masks(self, chosen: Rows, contexts: Contexts, matched: Sequence[Matched]) -> list[int]:
        """The policies whose scope each row is in. The rows get those of their findings. [] without policies."""
        policies = self._policies
        if policies is None:
            return []
        found: list[int] = contexts.policies[chosen.who].tolist()
        of_rows = [
            functools.reduce(operator.or_, (policies.mask(mask, position) for position in positions), 0)
            for mask, positions in zip(found, matched, strict=True)
        ]
        chosen.policies = np.array(of_rows, np.uint64)
        return found

    def _policy_piece(self, of_context: int, position: int) -> bytes:
        assert self._policies is not None
        names = self._policies.names(self._policies.mask(of_context, position))
        return b',"matchedPolicies":' + encode(names).encode()

    def forget_who(self) -> None:
        """Render processes again: more is known about containers now."""
        self._who.clear()
        self._events.forget_who()

    def event_lines(self, rows: Rows, contexts: Contexts) -> list[bytes]:
        """The lines of the events, without newlines."""
        lines, ends = self._events.render(rows, contexts)
        begins = [0, *ends[:-1].tolist()]
        return [lines[b : e - 1] for b, e in zip(begins, ends.tolist(), strict=True)]

    def _before(self, rows: Rows, contexts: Contexts, at: Array) -> list[bytes]:
        """`,"before":...` for the process of each row."""
        assert self._history is not None
        self._history.follow(contexts)
        turn = HistoryTurn(rows, contexts.table["tgid"][rows.who])
        found: list[bytes] = []
        for row in at.tolist():
            past, more = self._history.before(turn, row)
            lines = [] if past is None else self.event_lines(past, contexts)
            found.append(b',"before":[%s],"beforeOmitted":%d' % (b",".join(lines), more))
        return found

    def _marks(self, view: View, row: Array, rule: Array, who: list[bytes], data: list[bytes]) -> Array:
        marks = np.zeros(len(row), MARK)
        if self._secret:
            marks["fold"] = [self._key(p, w, d) for p, w, d in zip(rule.tolist(), who, data, strict=True)]
        for position, threshold in self._thresholds.items():
            mine = np.flatnonzero(rule == position)
            if len(mine):
                same = self._same.pieces(view, row[mine], rule[mine])
                marks["group"][mine] = [self._key(position, piece) for piece in same]
                marks["count"][mine], marks["within_ms"][mine] = threshold.count, threshold.within_ms
        return marks

    def _key(self, position: int, *parts: bytes) -> int:
        key = b"\0".join((self._folds[position], *parts))
        return int.from_bytes(hashlib.blake2b(key, digest_size=8, key=self._secret).digest(), "little")

    def values(self, view: View, chosen: Array, position: int) -> list[dict[str, Any]]:
        """The data fields of rows, all of one event, for a signature in Python."""
        return self._data.of(position, int(view.rows.event[chosen[0]])).values(view, chosen)

    def _subjects(self, rows: Rows, contexts: Contexts) -> list[tuple[_Subject, bytes]]:
        if self._generation != contexts.generation:
            self._generation = contexts.generation
            self._who.clear()
        who = rows.who.tolist()
        now = {each: self._subject(each, contexts.table[each]) for each in set(who)}
        return [now[each] for each in who]

    def _subject(self, who: int, context: Any) -> tuple[_Subject, bytes]:
        """The piece of a process, and its part of the folding key. The same context may run another program by now."""
        process, image = self._tree.running(context)
        known = self._who.get(who)
        if known is None or known.process is not process or known.image is not image or process is None:
            known = _subject(context, process, image, self._tree, self._describe)
            self._who.put(who, known, len(known.piece))
        path = image.path if image and image.path else bytes(context["comm"])
        return known, path + b"\0" + bytes(context["container"])


def _earlier(caused: Caused) -> list[bytes]:
    return [piece for line in caused.events() for piece in (line, b",")]


def _omitted(caused: Caused) -> bytes:
    more = caused.left_out()
    return b',"eventsOmitted":%d' % more if more else b""


class _Subject(NamedTuple):
    process: Process | None
    image: Image | None
    piece: bytes
    tgid: int
    oldest_ns: int
    """Start time of the oldest ancestor that is shown, or of the process itself if none is."""


def _subject(
    context: Any, process: Process | None, image: Image | None, tree: ProcessTree, describe: Describe
) -> _Subject:
    about = {
        "pid": int(context["tgid"]),
        "tid": int(context["tid"]),
        "ppid": int(context["ppid"]),
        "nsPid": int(context["ns_tgid"]),
        **said("name", bytes(context["comm"])),
        **shown_image(image),
        "uid": int(context["uid"]),
        **said_user(user_name(int(context["uid"]), context["container"])),
        "startTime": int(context["process_start_ns"]),
    }
    above: list[dict[str, object]] = []
    oldest_ns = int(context["process_start_ns"])
    if process is not None:
        found = ancestors(tree, process)[:MAX_ANCESTORS]
        images = [process.creator_image, *(each.creator_image for each in found)]
        above = [{"pid": each.key[0], **shown_image(i)} for each, i in zip(found, images, strict=False)]
        oldest_ns = found[-1].key[1] if found else oldest_ns
    piece = (
        f',{inner(said("hostName", bytes(context["nodename"])))},"process":{encode(about)}'
        f',"ancestors":{encode(above)},"container":' + encode(of_finding(context, describe))
    )
    return _Subject(process, image, piece.encode("utf-8", "replace"), int(context["tgid"]), oldest_ns)


def shown_image(image: Image | None) -> dict[str, object]:
    """The path and command line of an image in a finding."""
    if image is None:
        return {"path": None, "commandLine": None}
    path: dict[str, object] = {"path": None} if image.path is None else {**said("path", image.path)}
    if not image.argv:
        return path | {"commandLine": None}
    return path | said("commandLine", command_line(image.argv, False).parts[0])


def rule_parts(rule: Rule, generation: int) -> dict[str, object]:
    """The properties of its rule that a finding shows."""
    parts: dict[str, object] = {
        "signatureID": rule.id,
        "signatureName": rule.name,
        "title": rule.title or rule.name,
        "description": rule.description,
        "severity": rule.severity,
        "mitre": {"tactic": rule.mitre.tactic, "technique": rule.mitre.technique, "id": rule.mitre.id},
        "tags": list(rule.tags),
    }
    for key in ("author", "level", "status"):
        if getattr(rule, key):
            parts[key] = getattr(rule, key)
    if rule.references:
        parts["references"] = list(rule.references)
    return parts | {"generation": generation}
