"""Recordings whose bytes were changed and whose checksums fit: nothing that reads them may raise."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.bpf.tables.catalogue import catalogue
from headrace.config.filters import parse
from headrace.config.policies.claims import Claim
from headrace.pipeline.stages.recording import (
    GAPS,
    RecordingFacts,
    block,
    blocks,
    last_gaps,
    lead,
    open_recording,
    read_facts,
)
from headrace.pipeline.transport.gaps import GAP
from headrace.pipeline.transport.ring import FRAME, WATERMARK
from headrace.workers.conditions.filters import Predicates
from headrace.workers.core import Core
from headrace.workers.detect.detector import Detector, FindingOptions
from headrace.workers.detect.engine.matches import Matches
from headrace.workers.detect.findings.shapes import shape
from headrace.workers.detect.rules.rulesets import build
from headrace.workers.views import style
from headrace.workers.views.choice import Sources, view_of
from headrace.workers.views.table import fitted
from tests.replay.conftest import RECORDING, end, start

SEEDS, AT_A_TIME = 400, 50
AT_ONCE = 8
"""Bytes or numbers that are changed together, at most."""
NAME = "changed.hrc"
HEADER_BYTES, CELL, EVENT_AT = 184, 32, 16
FINAL_NS = 2**63
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
VIEWS = ("json", "table", "columns")
SHARD_AT, STREAM_AT, HEADS_AT, SHARDS_AT, COUNTED_BYTES, FACTS = 32, 34, 36, 44, 48, 2
"""Where a frame's header says whose it is, what it is and how many heads it has (bpf/c/layout.h)."""


class Options:
    """What is asked of views: all that there is."""

    parse_arguments = detect_syscall = stack_addresses = colour = verbose = True
    claims: tuple[Claim, ...] = ()
    hidden = ()
    columns = 100


def changed(payload: bytes, chance: random.Random) -> bytes:
    """Some bytes or numbers are others, mostly of the header and of heads, or the end is missing."""
    data = bytearray(payload)
    for _ in range(chance.randint(1, AT_ONCE)):
        what = chance.random()
        if what < 0.05:  # cut off
            del data[chance.randrange(len(data) + 1) :]
        if not data:
            break
        at = chance.randrange(min(HEADER_BYTES, len(data)) if what < 0.4 else len(data))
        if what > 0.7:
            data[at] = chance.randrange(256)
            continue
        size, form = chance.choice([(1, "<B"), (2, "<H"), (4, "<I"), (8, "<Q")])
        at -= at % size
        if at + size <= len(data):
            struct.pack_into(form, data, at, chance.choice(NUMBERS) & (1 << 8 * size) - 1)
    return bytes(data)


def recording(seed: int) -> bytes:
    """The demo's recording with some frames changed, and whole as a file."""
    chance = random.Random(seed)
    data = open_recording(RECORDING)
    facts, at = read_facts(data, NAME)
    made = [lead(facts)]
    for kind, payload in blocks(data, at, NAME):
        if chance.random() < 0.1:
            made.append(block(GAPS, chance.randbytes(GAP.itemsize * chance.randrange(4))))
        is_hit = kind == FRAME and chance.random() < 0.5
        made.append(block(kind, changed(bytes(payload), chance) if is_hit else bytes(payload)))
    return b"".join(made)


@pytest.fixture(scope="module")
def signatures() -> Detector:
    return Detector(build(catalogue(), ()).rules, catalogue())


class Reader:
    """A worker's reading, without its process."""

    def __init__(self, facts: RecordingFacts, detector: Detector) -> None:
        known = catalogue()
        self.detector = detector
        self.core = Core(known, 0, 1, Predicates(known, parse(["*", "openat.pathname=*"], known).conditions, None))
        shown = style.HostFacts(facts.boot_epoch_ns)
        self.core.look(detector.match, detector.shared)
        detector.open(known, shown, self.core.tree, FindingOptions(b"secret"))
        sources = Sources(Options(), known, shown, self.core.tree)
        self.views: list[Any] = [view_of(name, sources) for name in VIEWS]

    def turn(self, watermark_ns: int) -> int:
        """Everything up to there, in every form; how many events that were, or were rejected."""
        batch, contexts = self.core.advance(watermark_ns), self.core.contexts
        for name, view in zip(VIEWS, self.views, strict=True):
            out = view.render(batch.rows, contexts)
            if name == "table":
                fitted(*out, 80)
        matches = batch.matches or Matches.none()
        found = self.detector.render(batch.ripe, contexts, matches, slice(0, len(matches)))
        for line in found.data.splitlines():
            for form in ("table", "falco", "tracee"):
                shape(form, line, Options())
        filtered = 0 if batch.filtered_events is None else int(batch.filtered_events.sum())
        return len(batch.rows) + filtered + batch.rejected + batch.observed


def play(data: bytes, detector: Detector) -> tuple[int, int]:
    """Events that frames of it claim, and events that came of it or were rejected."""
    facts, at = read_facts(memoryview(data), NAME)
    reader = Reader(facts, detector)
    detector.gaps.know(last_gaps(memoryview(data), at))
    claimed = seen = 0
    for kind, payload in blocks(memoryview(data), at, NAME):
        if kind == FRAME:
            claimed += heads_of(bytes(payload))
            reader.core.feed(np.frombuffer(payload, "u1"))
        elif kind == WATERMARK:
            seen += reader.turn(struct.unpack("<Q", payload)[0])
    return claimed, seen + reader.turn(FINAL_NS)


def heads_of(frame: bytes) -> int:
    """Events that a frame claims; lifecycle records that nobody asked for are no events."""
    if len(frame) < COUNTED_BYTES or frame[STREAM_AT] == FACTS:
        return 0
    return int(struct.unpack_from("<H", frame, HEADS_AT)[0])


@pytest.mark.parametrize("first", range(0, SEEDS, AT_A_TIME))
def test_whatever_the_frames_hold_every_event_is_shown_or_rejected(first: int, signatures: Detector) -> None:
    for seed in range(first, first + AT_A_TIME):
        claimed, seen = play(recording(seed), signatures)
        assert (seed, seen) == (seed, claimed)


def test_a_recording_as_it_was_made_is_played_whole(signatures: Detector) -> None:
    data = bytes(open_recording(RECORDING))
    claimed, seen = play(data, signatures)
    assert seen == claimed > 10


def test_an_event_that_nobody_knows_is_rejected_and_ends_no_worker(tmp_path: Path) -> None:
    data = open_recording(RECORDING)
    facts, at = read_facts(data, NAME)
    made = [lead(facts)]
    for kind, payload in blocks(data, at, NAME):
        frame = bytearray(payload)
        if kind == FRAME and heads_of(bytes(frame)):
            head = HEADER_BYTES + CELL * int(
                np.unpackbits(np.frombuffer(frame[48:176], "u1"), bitorder="little").argmax()
            )
            struct.pack_into("<H", frame, head + 16, 60000)
        made.append(block(kind, bytes(frame)))
    path = tmp_path / NAME
    path.write_bytes(b"".join(made))
    found = end(start(str(path), "--workers", "2", "-o", "json:-"))
    assert found.status == 0
    assert "restarted" not in found.errors
    assert "Traceback" not in found.errors
    assert "  balanced" in found.errors
    assert "rejected 0 " not in found.errors


def test_frames_of_the_wrong_shard_are_rejected_by_any_number_of_workers(tmp_path: Path) -> None:
    data = open_recording(RECORDING)
    facts, at = read_facts(data, NAME)
    made = [lead(facts)]
    for number, (kind, payload) in enumerate(blocks(data, at, NAME)):
        frame = bytearray(payload)
        if kind == FRAME:
            struct.pack_into("<H", frame, SHARD_AT, number % 5)
            struct.pack_into("<I", frame, SHARDS_AT, (2, 6, 7)[number % 3])
        made.append(block(kind, bytes(frame)))
    path = tmp_path / NAME
    path.write_bytes(b"".join(made))
    ledgers = [tmp_path / f"ledger-{workers}" for workers in (1, 2, 3)]
    running = [
        start(str(path), "--workers", str(workers), "-o", "none", "--ledger", str(ledger))
        for workers, ledger in zip((1, 2, 3), ledgers, strict=True)
    ]
    errors = [end(process).errors for process in running]
    found = [json.loads(ledger.read_text()) for ledger in ledgers]
    assert [one["balanced"] for one in found] == [True] * 3, errors
    assert len({(one["produced"], one["rejected"], one["delivered"]) for one in found}) == 1
    assert found[0]["rejected"] > 0
    assert found[0]["delivered"] > 0
