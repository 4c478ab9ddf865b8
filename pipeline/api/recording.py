"""`headrace.open`: what a recording holds, read in this process, without privilege and in bounded memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, TypeVar

import msgspec
import numpy as np

from headrace.bpf.tables.catalogue import Catalogue, UnknownName, catalogue
from headrace.config.filters import FilterError, Selection, parse
from headrace.config.policies.claims import Claim
from headrace.pipeline.api.columns import Array, by_event, data_frame, structured
from headrace.pipeline.api.errors import Error
from headrace.pipeline.stages import recording
from headrace.pipeline.stages.recording import RecordingError
from headrace.pipeline.transport.ring import FRAME, U64, WATERMARK
from headrace.workers.conditions.filters import Predicates, check_words
from headrace.workers.core import END_OF_TIME, Core
from headrace.workers.enrich.users import UNKNOWN, Names, users_of
from headrace.workers.records.rows import Rows
from headrace.workers.views.choice import Sources, view_of
from headrace.workers.views.columns import ColumnsView
from headrace.workers.views.pieces import Lines
from headrace.workers.views.style import HostFacts

T = TypeVar("T")
Form = Literal["dicts", "numpy", "arrow", "polars"]
VIEWS = {"dicts": "json", "numpy": "columns", "arrow": "arrow", "polars": "arrow"}
RENDERING = threading.RLock()
MAX_HELD_BYTES = 256 << 20
TURN_BYTES = recording.TURN_BYTES
"""Bytes of frames that become one batch, about: what is in memory at a time."""


class EventBatch(NamedTuple):
    """Some events of one name, in order of time."""

    event: str
    data: Any
    """A list of dictionaries, a numpy structured array, a pyarrow.Table or a polars.DataFrame, as was asked for."""


@dataclass(frozen=True)
class _Options:
    """What the views ask (workers/views/choice.py)."""

    hidden: tuple[str, ...]
    parse_arguments: bool = True
    detect_syscall: bool = True
    stack_addresses: bool = False
    colour: bool = False
    columns: int = 0
    verbose: bool = False
    claims: tuple[Claim, ...] = ()


class Recording:
    """A recording that `headrace run --record FILE` made. `headrace.open(FILE)` makes this object.

        with headrace.open("run.hrc") as recording:
            opened = recording.read("openat.pathname=/etc/*", form="polars")["openat"]

    Events are those of `--events`: names, sets, globs, `!name` and conditions. The forms:

    - `dicts`: a dictionary for each event, as the JSON lines have them (docs/schema.json), without `lineage`
    - `numpy`: a structured array: `timestamp` (ns since the epoch), `event` (its id), `cpu`, `retval`, `flags`, the
      fields of the context (`tgid`, `uid`, `comm`, ...; docs/reference/wire.md), and `args.NAME`, the raw `<u8` of each
      argument
    - `arrow`, `polars`: a table with the names of the JSON lines, and for each argument `args.NAME`, its text, and
      `args.NAME.raw`, its number (docs/reference/wire.md, "Arrow")

    The file is mapped, and some 1 MiB of it is decoded at a time: what `batches()` and iterating need does not depend
    on how long the recording is. `read()` holds all that it returns.

    Raises `headrace.Error` for a file that is no recording, events that do not exist and conditions that are invalid.
    If the end of a recording is damaged, what stands before it is given first, and then the error is raised.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._name = os.fspath(path)
        try:
            self._data = recording.open_recording(Path(path))
            self.facts, self._at = recording.read_facts(self._data, self._name)
        except RecordingError as error:
            raise Error(str(error)) from error

    # each takes a look at every block of the file
    @cached_property
    def _held_bytes(self) -> int:
        return recording.turn_bytes(self._data, self._at)

    @cached_property
    def _steps(self) -> Array:
        return recording.last_tables(self._data, self._at)[1]

    @property
    def events(self) -> tuple[str, ...] | None:
        """Names of the events that were recorded; None if the recording does not say."""
        return self.facts.events

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """All events, in order of time."""
        for turn in self._turns("*", "dicts"):
            yield from self._rendered(turn.all_dicts)

    def batches(self, events: str = "*", form: Form = "numpy") -> Iterator[EventBatch]:
        """Events by name, a batch at a time. Batches of one event are in order of time."""
        for turn in self._turns(events, form):
            yield from self._rendered(partial(turn.batches, form))

    def read(self, events: str = "*", form: Form = "numpy") -> dict[str, Any]:
        """All of it at once: by event, one list, array, table or data frame."""
        found: dict[str, list[Any]] = {}
        for batch in self.batches(events, form):
            found.setdefault(batch.event, []).append(batch.data)
        return {name: _joined(parts, form) for name, parts in sorted(found.items())}

    def _rendered(self, render: Callable[[], list[T]]) -> list[T]:
        """What is rendered with the names of the recorded host's users. All at once: the caller's code may read another
        recording before it goes on.
        """
        users = self.facts.users
        # the names of users are the process's: one recording at a time
        with RENDERING, users_of(Names(users.names, users.others) if users else UNKNOWN):
            return render()

    def _turns(self, events: str, form: Form) -> Iterator[_Turn]:
        if form not in VIEWS:
            raise Error(f"form: {' '.join(VIEWS)}, not {form}")
        if self._held_bytes > MAX_HELD_BYTES:
            raise Error(f"{self._name}: {self._held_bytes} bytes must be held at a time, more than {MAX_HELD_BYTES}")
        known = catalogue()
        selection = _selected(events, known)
        only = None if events == "*" else selection.events
        core = Core(known, 0, 1, Predicates(known, selection.conditions, only))
        facts = HostFacts(self.facts.boot_epoch_ns)
        facts.steps.know(self._steps)
        options = _Options(self.facts.hidden)
        view = view_of(VIEWS[form], Sources(options, known, facts, core.tree), with_lineage=False)
        damage, since = None, 0
        blocks = recording.blocks(self._data, self._at, self._name)
        while True:
            try:
                block = next(blocks, None)
            except RecordingError as error:
                damage, block = error, None
            if block is None:
                break
            if block.kind == FRAME:
                core.feed(np.frombuffer(block.payload, np.uint8))
                since += len(block.payload)
            elif block.kind == WATERMARK and since >= TURN_BYTES:
                since = 0
                yield _Turn(core.advance(U64.unpack(block.payload)[0]).rows, core, view, known)
        yield _Turn(core.advance(END_OF_TIME).rows, core, view, known)
        if damage:
            raise Error(str(damage)) from damage

    def close(self) -> None:
        """Let go of the file. Arrays that were read stay valid."""
        self._data = memoryview(b"")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class _Turn(NamedTuple):
    """Rows that are let go together, and what renders them."""

    rows: Rows
    core: Core
    view: Any
    known: Catalogue

    def batches(self, form: Form) -> list[EventBatch]:
        if not len(self.rows):
            return []
        if form in ("arrow", "polars"):
            import pyarrow as pa

            tables = by_event(pa.Table.from_batches([self.view.batch(self.rows, self.core.contexts)]))
            return [EventBatch(name, part if form == "arrow" else data_frame(part)) for name, part in tables.items()]
        render = self._dicts if form == "dicts" else self._array
        of_event = {int(n): self.rows.select(self.rows.event == n).compact() for n in np.unique(self.rows.event)}
        return [EventBatch(self.known.by_id[n].name, render(rows, n)) for n, rows in of_event.items()]

    def all_dicts(self) -> list[dict[str, Any]]:
        return self._dicts(self.rows)

    def _dicts(self, rows: Rows, _number: int = 0) -> list[dict[str, Any]]:
        assert isinstance(self.view, Lines)
        lines = bytes(self.view.render(rows, self.core.contexts).data).splitlines()
        return [msgspec.json.decode(line, type=dict[str, Any]) for line in lines]

    def _array(self, rows: Rows, number: int) -> Array:
        assert isinstance(self.view, ColumnsView)
        names = [argument.name for argument in self.known.by_id[number].arguments if argument.in_record]
        return structured(self.view.sections(rows, self.core.contexts), names)


def _joined(parts: list[Any], form: Form) -> Any:
    if form == "dicts":
        return [row for part in parts for row in part]
    if form == "numpy":
        return np.concatenate(parts)
    if form == "arrow":
        import pyarrow as pa

        return pa.concat_tables(parts)
    import polars

    return polars.concat(parts)


def _selected(events: str, known: Catalogue) -> Selection:
    try:
        selection = parse([events], known)
        check_words(selection.conditions)
    except (UnknownName, FilterError) as error:
        raise Error(str(error)) from error
    # there is no kernel to take anything out
    return selection.beside(selection.events)


def open_recording(path: str | os.PathLike[str]) -> Recording:
    """Open a recording: see `Recording`. `headrace.Error` if it is none."""
    return Recording(path)
