"""The configuration file and what its texts say: events and conditions, scopes, outputs, runtimes; the environment.

An input is a TOML file. Files that settings name are not opened: what stands in them is other targets' business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from headrace.bpf.programs import scope
from headrace.bpf.programs.early import c_source
from headrace.bpf.programs.terms import ScopeError
from headrace.bpf.tables.catalogue import Catalogue, UnknownName
from headrace.config import filters, layers, outputs, runtimes, settings
from headrace.config.settings import Settings, SettingsError
from headrace.pipeline.signatures.detection import only_findings, sinks
from headrace.workers.conditions.early import early_tests
from headrace.workers.conditions.filters import Predicates, check_words
from tests.fuzz import reasoned
from tests.fuzz.files import sound, unhinted, written
from tests.fuzz.seeds import SETTINGS

FORM = "toml"
EACH = 1
TOKENS = (
    b'events = "',
    b'output = ["',
    b'scope = ["',
    b'crs = ["',
    b"openat.args.pathname=",
    b"close.retval>=",
    b"args.flags=O_",
    b"0x",
    b"00",
    b"99999999999999999999",
    b"1e999",
    b"nan",
    b"-inf",
    b"[a]\n",
    b"a.b.c = 1\n",
    b'"""',
    b"\\u0000",
    b"\\U0010ffff",
    b"1979-05-27",
    b",policy=",
    b"zmq:tcp://",
    b"[::1]",
    b"!",
    b"tree=",
    b"comm=",
    b"uid>=",
    b"/../",
    b"container=",
    b"cgroup=99999999999999999999",
    b"\xff",
    b"9" * 60,
)
PERMITTED = (
    SettingsError,
    outputs.OutputError,
    filters.FilterError,
    UnknownName,
    ScopeError,
)
KEYS = ("WORKERS", "EVENTS", "FOLD_S", "BEFORE_S", "LOG_LEVEL", "EXEC_HASH", "RING_BYTES")


def seeds() -> Iterator[bytes]:
    """Some files."""
    return (text.encode() for text in SETTINGS)


def _refused(what: Callable[[], Any]) -> Any:
    """The answer, or None where the text is refused with a reason."""
    try:
        return what()
    except PERMITTED as error:
        reasoned(str(error))
        return None


@cache
def _catalogue() -> Catalogue:
    """One that lists its sets once: that takes longer than all else."""
    known = Catalogue()
    sets = known.sets()
    known.sets = lambda: sets  # type: ignore[method-assign]
    return known


def _events(text: str) -> None:
    selection = filters.parse([text or "default"], _catalogue())
    check_words(selection.conditions)
    Predicates(_catalogue(), selection.conditions)
    sound(c_source(early_tests(selection.conditions)))


def _source(words: tuple[str, ...]) -> str:
    found = scope.parse(words, 1, False)
    return found.c_source() + found.c_container()


def _texts(found: Settings) -> None:
    _refused(lambda: outputs.check_shared(outputs.parse(found.output or ["table:-"]).sinks))
    _refused(lambda: sinks(found, only_findings(found, True)))
    _refused(lambda: _events(found.events))
    _refused(lambda: runtimes.endpoints(found.crs))
    for words in (found.scope, *((each,) for each in found.scope)):
        sound(_refused(lambda words=words: _source(words)) or "")  # type: ignore[misc]


@unhinted()
def target(data: bytes) -> None:
    with written(data, ".toml") as path, written(data, ".yaml") as other:
        found = _refused(lambda: layers.resolve(Path(path), {}).settings)
        _refused(lambda: layers.resolve(Path(other), {}).settings)
    if found is not None:
        _texts(found)
    # neither a command line nor the environment can have a NUL
    text = data.decode("utf-8", "surrogateescape").partition("\n")[0].partition("\0")[0]
    for key in KEYS:
        _refused(lambda key=key: settings.from_environment({f"HEADRACE_{key}": text}))  # type: ignore[misc]
    flags = {"events": text, "log_level": text, "min_severity": text, "ledger": text, "scope": [text]}
    _refused(lambda: layers.resolve(None, flags))
    # as they come from a command line, where no TOML stands around them
    _texts(Settings(events=text, scope=(text,), output=(text,), findings=(text,), crs=(text,)))
