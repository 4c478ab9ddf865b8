"""Settings: what wins, and what is said about a key or value that cannot be. The file is of the former format, TOML."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.config import layers
from headrace.config.settings import MAX_WORKERS, Settings, SettingsError, default_workers


def resolve(file: Path | None, flags: dict[str, Any]) -> Settings:
    return layers.resolve(file, flags).settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "headrace.toml"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HEADRACE_")]:
        monkeypatch.delenv(name)


def test_defaults_stand_where_nothing_is_said() -> None:
    assert resolve(None, {}) == Settings()


def test_the_file_wins_over_defaults_and_flags_over_the_file(file: Path) -> None:
    file.write_text('workers = 3\nevents = "openat"\nscope = ["uid=0"]\n')
    found = resolve(file, {"workers": 5, "events": None})
    assert (found.workers, found.events, found.scope) == (5, "openat", ("uid=0",))
    assert found.interval_ms == Settings().interval_ms


def test_the_environment_stands_between_file_and_flags(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("workers = 3\ninterval_ms = 4\n")
    monkeypatch.setenv("HEADRACE_WORKERS", "7")
    monkeypatch.setenv("HEADRACE_PARSE_ARGUMENTS", "false")
    found = resolve(file, {})
    assert (found.workers, found.interval_ms, found.parse_arguments) == (7, 4, False)
    assert resolve(file, {"workers": 2}).workers == 2


@pytest.mark.parametrize("value", ["many", "0", ""])
def test_a_variable_that_makes_no_sense_is_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_WORKERS", value)
    with pytest.raises(SettingsError, match=r"^HEADRACE_WORKERS: "):
        resolve(None, {})


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        resolve(None, {}).workers = 2  # type: ignore[misc]


def test_workers_default_to_half_of_the_cpus_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for cpus, expected in ((1, 1), (2, 1), (8, 4), (128, 8)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=cpus: set(range(n)))
        assert default_workers() == expected


@pytest.mark.parametrize(
    ("key", "meant"),
    [("worker", "workers"), ("ringbytes", "ring_bytes"), ("even", "events"), ("log-level", "log_level")],
)
def test_an_unknown_key_is_named_with_the_file_and_the_nearest_key(file: Path, key: str, meant: str) -> None:
    file.write_text(f"{key} = 1\n")
    with pytest.raises(SettingsError) as raised:
        resolve(file, {})
    assert str(raised.value).startswith(str(file))
    assert key in str(raised.value)
    assert f"did you mean {meant}?" in str(raised.value)


def test_a_key_like_no_other_gets_no_suggestion(file: Path) -> None:
    file.write_text("zzqq = 1\n")
    with pytest.raises(SettingsError, match=r"no such key: zzqq$"):
        resolve(file, {})


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("workers = 0", "workers"),
        (f"workers = {MAX_WORKERS + 1}", "workers"),
        ('workers = "2"', "workers"),
        ("perf_pages = 4", "perf_pages"),
        ("ring_bytes = 1", "ring_bytes"),
        ("interval_ms = 0", "interval_ms"),
        ("capture_bytes = 4097", "capture_bytes"),
        ("output = {a = 1}", "output"),
        ("scope = [1]", "scope"),
        ("parse_arguments = 1", "parse_arguments"),
    ],
)
def test_a_value_of_the_wrong_kind_or_range_is_named_with_key_and_file(file: Path, line: str, key: str) -> None:
    file.write_text(line)
    with pytest.raises(SettingsError) as raised:
        resolve(file, {})
    assert str(raised.value).startswith(str(file))
    assert key in str(raised.value)


@pytest.mark.parametrize(("key", "flag"), [("workers", "--workers"), ("ring_bytes", "--ring-bytes")])
def test_a_flag_out_of_range_is_named_as_it_was_written(key: str, flag: str) -> None:
    with pytest.raises(SettingsError, match=f"^{flag}: "):
        resolve(None, {key: 0})


def test_a_log_level_that_does_not_exist_is_refused(file: Path) -> None:
    file.write_text('log_level = "loud"')
    with pytest.raises(SettingsError, match="log_level"):
        resolve(file, {})


@pytest.mark.parametrize("key", ["perf_pages", "urgent_pages"])
def test_pages_that_are_no_power_of_two_are_refused(file: Path, key: str) -> None:
    # perf_event_open(2): 1 + 2^n pages
    file.write_text(f"{key} = 24")
    with pytest.raises(SettingsError, match=key.replace("_", "[_-]")):
        resolve(file, {})


def test_a_missing_file_is_named() -> None:
    with pytest.raises(SettingsError, match=r"/nonexistent/x\.toml: No such file"):
        resolve(Path("/nonexistent/x.toml"), {})


def test_a_file_that_is_no_toml_is_named_with_the_line(file: Path) -> None:
    file.write_text("workers = 1\nworkers =\n")
    with pytest.raises(SettingsError, match=rf"{file}.*line 2"):
        resolve(file, {})


def test_a_file_that_is_no_text_is_named(file: Path) -> None:
    file.write_bytes(b'events = "\xff"\n')
    with pytest.raises(SettingsError, match=str(file)):
        resolve(file, {})


def test_every_setting_can_stand_in_a_file(file: Path) -> None:
    lines = []
    for name, value in msgspec.to_builtins(Settings()).items():
        lines.append(f"{name} = {msgspec.json.encode(value).decode()}")
    file.write_text("\n".join(lines))
    assert resolve(file, {}) == Settings()


@pytest.mark.parametrize("name", ["HEADRACE_LOG_LEVEL", "HEADRACE_WORKERS"])
def test_what_is_no_text_in_the_environment_is_refused_by_its_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, os.fsdecode(b"\xff"))
    with pytest.raises(SettingsError, match=f"{name}: not UTF-8"):
        resolve(None, {})


def test_a_choice_that_is_no_text_is_refused() -> None:
    with pytest.raises(SettingsError, match="not UTF-8"):
        resolve(None, {"log_level": os.fsdecode(b"\xff")})


@pytest.mark.parametrize("text", ["workers = " + "9" * 5000, "a = " + "[" * 5000], ids=["digits", "depth"])
def test_a_file_beyond_what_python_takes_is_named(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(SettingsError, match=str(file)):
        resolve(file, {})


@pytest.mark.parametrize("line", ['ledger = "a\\u0000b"', 'output = ["table", "json:a\\u0000b"]'])
def test_a_nul_in_a_text_is_refused_by_its_key(file: Path, line: str) -> None:
    file.write_text(line)
    with pytest.raises(SettingsError, match=f"--{line.split()[0]}: a text with a NUL"):
        resolve(file, {})
