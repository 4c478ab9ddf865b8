"""`headrace.open` on the recording that ships: all forms have the same events, and bad input has its error."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import headrace
from headrace.pipeline.command.demo import RECORDING
from tests.live import headrace as command


@pytest.fixture(scope="module")
def lines() -> list[dict[str, object]]:
    """What a replay shows."""
    return [json.loads(line) for line in command("replay", str(RECORDING), "-o", "json:-").stdout.splitlines()]


def test_iterating_gives_what_a_replay_shows(lines: list[dict[str, object]]) -> None:
    with headrace.open(RECORDING) as recording:
        found = list(recording)
    # lines describe a process once, for those that follow; a dictionary stands alone
    assert found == [{key: value for key, value in line.items() if key != "lineage"} for line in lines]


@pytest.mark.parametrize("form", ["dicts", "numpy", "arrow", "polars"])
def test_all_forms_have_all_events(form: str, lines: list[dict[str, object]]) -> None:
    with headrace.open(RECORDING) as recording:
        found = recording.read(form=form)  # type: ignore[arg-type]
    expected: dict[object, int] = {}
    for line in lines:
        expected[line["eventName"]] = expected.get(line["eventName"], 0) + 1
    assert {name: len(data) for name, data in found.items()} == expected


def test_each_argument_has_a_column(lines: list[dict[str, object]]) -> None:
    opens = [line for line in lines if line["eventName"] == "openat"]
    arguments = [{a["name"]: a for a in line["args"]} for line in opens]  # type: ignore[attr-defined]
    with headrace.open(RECORDING) as recording:
        array = recording.read("openat", form="numpy")["openat"]
        table = recording.read("openat", form="arrow")["openat"]
    assert isinstance(table, pa.Table)
    assert array["timestamp"].tolist() == [line["timestamp"] for line in opens]
    assert array["retval"].tolist() == [line["returnValue"] for line in opens]
    assert array["comm"].tolist() == [str(line["processName"]).encode() for line in opens]
    assert array["args.flags"].tolist() == [a["flags"]["raw"] for a in arguments]
    assert table["args.pathname"].to_pylist() == [a["pathname"]["value"] for a in arguments]
    assert table["args.flags"].to_pylist() == [a["flags"]["value"] for a in arguments]
    assert table["args.flags.raw"].to_pylist() == [a["flags"]["raw"] for a in arguments]


def test_conditions_are_those_of_events() -> None:
    with headrace.open(RECORDING) as recording:
        found = recording.read("openat.pathname=/etc/*,kill,!kill", form="dicts")
    paths = [a["value"] for e in found["openat"] for a in e["args"] if a["name"] == "pathname"]
    assert set(found) == {"openat"}
    assert paths
    assert all(path.startswith("/etc/") for path in paths)


def test_arrays_outlive_the_recording() -> None:
    with headrace.open(RECORDING) as recording:
        batches = list(recording.batches("openat,execve"))
    times = np.concatenate([data["timestamp"] for name, data in batches if name == "openat"])
    assert (np.diff(times.astype(np.int64)) >= 0).all()
    assert all(data["cpu"].flags.owndata or data.base is None for _, data in batches)


def test_two_recordings_can_be_read_in_turns() -> None:
    with headrace.open(RECORDING) as one, headrace.open(RECORDING) as other:
        assert list(zip(one, other, strict=True)) == [(event, event) for event in one]


@pytest.mark.parametrize(
    ("events", "why"),
    [
        ("opennat", "no such event or set: opennat"),
        ("openat.flags=O_NOSUCH", "openat.flags=O_NOSUCH: flags has no O_NOSUCH"),
        ("openat.nosuch=1", "openat"),
    ],
)
def test_events_that_cannot_be_asked_for_are_refused(events: str, why: str) -> None:
    with headrace.open(RECORDING) as recording, pytest.raises(headrace.Error, match=why):
        recording.read(events)


def test_a_form_that_does_not_exist_is_refused() -> None:
    with (
        headrace.open(RECORDING) as recording,
        pytest.raises(headrace.Error, match="form: dicts numpy arrow polars, not"),
    ):
        recording.read(form="pandas")  # type: ignore[arg-type]


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no\n")
    for path in (tmp_path / "text", tmp_path / "missing", tmp_path):
        with pytest.raises(headrace.Error, match=str(path)):
            headrace.open(path)


def test_what_stands_before_damage_is_given_first(tmp_path: Path, lines: list[dict[str, object]]) -> None:
    cut = tmp_path / "cut.hrc"
    cut.write_bytes(RECORDING.read_bytes()[:-64])
    found = []
    with headrace.open(cut) as recording, pytest.raises(headrace.Error, match="cut off at byte"):
        found.extend(recording)
    assert len(found) <= len(lines)
