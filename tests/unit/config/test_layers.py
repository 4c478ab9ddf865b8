"""Configuration: files, fragments, profiles, environment and options, and what is said of what is wrong in them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from headrace.config import layers
from headrace.config.settings import SettingsError, fields_of_settings
from headrace.pipeline.command import cli
from headrace.pipeline.command.configuration import schema_text

SCHEMA = Path(__file__).parents[3] / "docs" / "config.schema.json"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HEADRACE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "headrace.yaml"


def headrace(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli.main, [str(each) for each in arguments])
    return result.exit_code, result.output


def test_each_layer_wins_over_those_before_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("profile: host\nworkers: 3\nfold_s: 7\nscope: uid=0\ninterval_ms: 2\nlog_level: info\n")
    fragments = file.with_suffix(".d")
    fragments.mkdir()
    (fragments / "20.yaml").write_text("fold_s: 9\ninterval_ms: 4\n")
    (fragments / "10.yaml").write_text("fold_s: 8\nscope: [uid=1, tid!=2]\n")
    (fragments / "not.txt").write_text("nonsense")
    monkeypatch.setenv("HEADRACE_INTERVAL_MS", "5")
    found = layers.resolve(file, {"log_level": "error", "events": None})
    chosen = found.settings
    assert (chosen.before_s, chosen.workers, chosen.fold_s, chosen.scope) == (2, 3, 9, ("uid=1", "tid!=2"))
    assert (chosen.interval_ms, chosen.log_level, chosen.perf_pages) == (5, "error", 4096)
    assert found.places == {
        "findings": "profile host",
        "before_s": "profile host",
        "workers": f"{file}:2",
        "fold_s": f"{fragments}/20.yaml:1",
        "scope": f"{fragments}/10.yaml:2",
        "interval_ms": "HEADRACE_INTERVAL_MS",
        "log_level": "--log-level",
    }


def test_a_profile_is_named_by_option_environment_or_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("profile: ci\n")
    assert layers.resolve(file, {}).settings.fold_s == 3600
    monkeypatch.setenv("HEADRACE_PROFILE", "forensics")
    assert layers.resolve(file, {}).settings.fold_s == 0
    assert layers.resolve(file, {}, "host").settings.fold_s == 300


@pytest.mark.parametrize("name", layers.profiles())
def test_profiles_that_ship_are_sound(name: str, file: Path) -> None:
    file.write_text(f"profile: {name}\n")
    status, said = headrace("config", "check", file)
    assert (status, said.startswith(f"{file}: well (")) == (0, True), said


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("workers: 2\nworker: 3\n", 2, "no such key: worker; did you mean workers?"),
        ("workers: 2\nlog-level: info\n", 2, "no such key: log-level; did you mean log_level?"),
        ("workers: many\n", 1, "workers: Expected `int`, got `str`"),
        ("\nworkers: 65\n", 2, "workers: Expected `int` <= 64".replace("Expected `int` <= 64", "at most 64")),
        ("min_severity: hihg\n", 1, "min_severity: Invalid enum value 'hihg'"),
        ("scope: {uid: 0}\n", 1, "scope: Expected `array`, got `object`"),
        ("scope:\n  - 5\n", 1, "scope: Expected `str`, got `int`"),
        ("profile: hosts\n", 1, "no such profile: hosts (there are: ci, container-host, forensics, host)"),
        ("profile: [host]\n", 1, "profile: the name of a profile is wanted"),
        ("workers: 2\nworkers: 3\n", 2, "the key workers stands twice"),
        ("- workers\n", 1, "settings are written KEY: VALUE"),
        ("workers: 2\n---\nworkers: 3\n", 3, "more than one document"),
        ("workers: [\n", 2, "not YAML"),
        ("record: !!python/object:os.system x\n", 1, "not a plain value"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(file: Path, text: str, line: int, says: str) -> None:
    file.write_text(text)
    with pytest.raises(SettingsError) as error:
        layers.resolve(file, {})
    assert str(error.value).startswith(f"{file}:{line}: ")
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("workers: 2\ncapture: exec\n", 2, "capture: needs a directory for the artifacts"),
        ("\nperf_pages: 100\n", 2, "perf_pages: 100 is not a power of two"),
    ],
)
def test_contradictions_are_named_with_their_line(file: Path, text: str, line: int, says: str) -> None:
    file.write_text(text)
    status, said = headrace("config", "check", file)
    assert (status, said.startswith(f"headrace: {file}:{line}: {says}")) == (2, True), said


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_file_changes_nothing(file: Path, text: str) -> None:
    file.write_text(text)
    assert layers.resolve(file, {}).places == {}


def test_a_file_that_is_not_there_is_named(file: Path) -> None:
    with pytest.raises(SettingsError, match=r"headrace\.yaml: No such file"):
        layers.resolve(file, {})


def test_show_says_where_each_setting_comes_from(file: Path) -> None:
    file.write_text("workers: 3\noutput: [none]\n")
    status, said = headrace("config", "show", "-c", file, "-e", "openat")
    assert status == 0
    lines = dict(line.rsplit("  # ", 1) for line in said.splitlines())
    told = {line.strip(): place for line, place in lines.items()}
    assert told["workers: 3"] == f"{file}:1"
    assert told["output: [none]"] == f"{file}:2"
    assert told["events: openat"] == "--events"
    assert told["log_level: warning"] == "default"
    assert len(told) == len(fields_of_settings())
    assert yaml.safe_load(said)["workers"] == 3


def test_init_writes_a_file_with_every_key(file: Path) -> None:
    status, said = headrace("config", "init", "--profile", "ci")
    assert status == 0
    file.write_text(said)
    assert layers.resolve(file, {}).settings == layers.resolve(None, {}, "ci").settings
    bare = "\n".join(line.removeprefix("# ") for line in said.splitlines() if ": " in line)
    assert all(f"\n{key}:" in f"\n{bare}" for key in fields_of_settings())


def test_the_former_format_is_converted(tmp_path: Path, file: Path) -> None:
    old = tmp_path / "old.toml"
    old.write_text('workers = 3\nscope = ["uid=0"]\nevents = "openat,close"\n')
    status, said = headrace("config", "convert", old)
    assert status == 0
    file.write_text(said)
    assert layers.resolve(file, {}).settings == layers.resolve(old, {}).settings


def test_the_schema_is_what_the_code_says_and_takes_what_it_should() -> None:
    assert SCHEMA.read_text() == schema_text()
    schema = json.loads(schema_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    good = yaml.safe_load("profile: host\nworkers: 2\nscope: uid=0\noutput: [none]\n")
    jsonschema.validate(good, schema)
    for name, path in layers.profiles().items():
        jsonschema.validate(yaml.safe_load(path.read_text()) | {"profile": name}, schema)
    for bad in ({"worker": 2}, {"workers": 65}, {"scope": [5]}, {"profile": "x"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema)
