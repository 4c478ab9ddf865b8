"""A recording during which the wall clock was set: a replay shows the times that the run showed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from headrace.pipeline.stages.recording import BLOCK, OFFSETS, VERSION, block, blocks, lead, open_recording, read_facts
from headrace.pipeline.transport.offsets import STEP
from tests.replay.conftest import RECORDING, Replayed, end, start

HOUR_NS = 3600 * 10**9


def test_a_replay_shows_each_event_by_the_offset_of_its_time(
    replays: dict[tuple[int, str], Replayed], tmp_path: Path
) -> None:
    events = [json.loads(line) for line in replays[1, "json"].out.splitlines()]
    data = open_recording(RECORDING)
    facts, at = read_facts(data, "demo")
    base, middle = facts.boot_epoch_ns, events[len(events) // 2]["timestamp"]
    step = np.array([(middle - base, base + HOUR_NS)], STEP)
    found = [block(kind, payload) for kind, payload in blocks(data, at, "demo")]
    changed = tmp_path / "set.hrc"
    # before its end: what came last holds for all of it
    changed.write_bytes(lead(facts) + b"".join(found[:-1]) + block(OFFSETS, step.tobytes()) + found[-1])
    for workers in ("1", "2"):
        done = end(start(str(changed), "-o", "json:-", "--workers", workers))
        assert done.status == 0, done.errors
        times = [json.loads(line)["timestamp"] for line in done.out.splitlines()]
        expected = [e["timestamp"] + HOUR_NS * (e["timestamp"] >= middle) for e in events]
        assert times == expected
        assert len(set(times) - {e["timestamp"] for e in events}) > 10


def test_a_recording_of_the_version_before_is_read(tmp_path: Path) -> None:
    data = bytes(open_recording(RECORDING))
    assert data[8] in (VERSION, VERSION - 1)
    older = tmp_path / "older.hrc"
    older.write_bytes(data[:8] + bytes([VERSION - 1]) + data[9:])
    assert end(start(str(older), "-o", "none")).status == 0


def test_times_that_are_none_are_damage(tmp_path: Path) -> None:
    data = open_recording(RECORDING)
    facts, at = read_facts(data, "demo")
    wrong = block(OFFSETS, np.array([(9, 1), (5, 1)], STEP).tobytes())
    changed = tmp_path / "wrong.hrc"
    changed.write_bytes(lead(facts) + wrong + bytes(data[at:]))
    done = end(start(str(changed), "-o", "none"))
    assert done.status == 65
    assert f"corrupted at byte {len(lead(facts))}" in done.errors
    assert BLOCK.size == 16
