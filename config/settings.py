"""Settings: defaults < configuration file < environment < flags, resolved once in the supervisor.

The file is TOML with the keys of `Settings`. An unknown key, a wrong type or a value out of range is a `SettingsError`
that names the key and the file; for an unknown key also the nearest valid one.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

MAX_WORKERS = 64
MAX_RING_BYTES = 1 << 30
Pages = Annotated[int, msgspec.Meta(ge=8, le=16384)]
RingBytes = Annotated[int, msgspec.Meta(ge=1 << 18, le=MAX_RING_BYTES)]
ResultBytes = Annotated[int, msgspec.Meta(ge=1 << 22, le=1 << 30)]
"""A result ring must hold several lines of the maximum length (pipeline/transport/ring.py, fits)."""
OPTIONS = {"fold_s": "--fold", "before_s": "--before"}
"""Keys whose option has a different name."""


class SettingsError(Exception):
    """The configuration cannot be used."""


def default_workers() -> int:
    """One worker for every two CPUs that this process may use; at least one, at most eight."""
    return max(1, min(8, len(os.sched_getaffinity(0)) // 2))


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings of a run. Sizes are in bytes unless the name says otherwise."""

    workers: Annotated[int, msgspec.Meta(ge=1, le=MAX_WORKERS)] = msgspec.field(default_factory=default_workers)
    events: str = ""
    scope: tuple[str, ...] = ()
    output: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    signatures: tuple[str, ...] = ()
    """Files and folders in addition to the signatures that ship."""
    sigma: tuple[str, ...] = ()
    sigma_keywords: bool = False
    rules: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    min_severity: Literal["info", "low", "medium", "high", "critical"] = "info"
    exceptions: str = ""
    fold_s: Annotated[int, msgspec.Meta(ge=0, le=86400)] = 60
    before_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 0
    perf_pages: Pages = 4096
    urgent_pages: Pages = 256
    ring_bytes: RingBytes = 32 << 20
    result_bytes: ResultBytes = 16 << 20
    interval_ms: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 8
    kernel_checks: Literal["none", "rest", "all"] = "rest"
    """What kprobes on the kernel's security checks report: nothing, what the end of calls does not, or everything."""
    integrity_s: Annotated[int, msgspec.Meta(ge=1, le=86400)] = 30
    order_bound_ms: Annotated[int, msgspec.Meta(ge=1, le=60000)] = 200
    parse_arguments: bool = True
    detect_syscall: bool = True
    exec_environment: bool = False
    relative_time: bool = False
    verbose: bool = False
    """Tables show all arguments of every event."""
    stack_addresses: bool = False
    fd_paths: bool = False
    exec_hash: bool = False
    exec_hash_remote: bool = False
    capture_bytes: Annotated[int, msgspec.Meta(ge=0, le=4096)] = 0
    capture: tuple[str, ...] = ()
    """Artifacts to keep (config/capture.py)."""
    capture_dir: str = ""
    capture_limit_mb: Annotated[int, msgspec.Meta(ge=1, le=1 << 30)] = 1024
    record: str = ""
    ledger: str = ""
    containers: bool = False
    crs: tuple[str, ...] = ()
    """Sockets of container runtimes, RUNTIME:PATH. Empty: the default ones."""
    container_labels: tuple[str, ...] = ()
    """Globs of the container labels that events show."""
    cache: str = "/var/cache/headrace"
    """Folder for compiled programs; "" disables the cache."""
    log_level: Literal["debug", "info", "warning", "error"] = "warning"


@cache
def _fields() -> tuple[msgspec.structs.FieldInfo, ...]:
    """The keys. Cached, because listing them takes milliseconds."""
    return msgspec.structs.fields(Settings)


def _named(text: str) -> str | None:
    match = re.search(r"`\$\.?(\w*)|unknown field `(\w+)`", text)
    return next((g for g in match.groups() if g), None) if match else None


def _explain(error: msgspec.ValidationError, where: str) -> SettingsError:
    text = str(error)
    unknown = re.search(r"unknown field `([^`]+)`", text)
    if unknown:
        near = difflib.get_close_matches(unknown[1].replace("-", "_"), [f.name for f in _fields()], n=1)
        return SettingsError(f"{where}: no such key: {unknown[1]}" + (f"; did you mean {near[0]}?" if near else ""))
    limit = re.search(r"Expected `(?:int|float)` (>=|<=) (-?[0-9]+)(?:\.0)?", text)
    if limit:
        text = text.replace(limit[0], f"at {'least' if limit[1] == '>=' else 'most'} {limit[2]}")
    return SettingsError(
        f"{where}: {text.split(' - at ')[0]}" if where.startswith("--") else f"{where}: {text.replace('$.', '')}"
    )


def read_file(path: Path) -> dict[str, Any]:
    """The keys of a configuration file. SettingsError if it cannot be read or is not TOML."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    except ValueError as error:  # not TOML, not UTF-8, or a number of more digits than Python accepts
        raise SettingsError(f"{path}: {error}") from error
    except RecursionError as error:
        raise SettingsError(f"{path}: nested too deeply") from error


def from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """Settings from HEADRACE_WORKERS and similar variables: all except lists. SettingsError for an invalid value."""
    found: dict[str, Any] = {}
    for field in _fields():
        text = environment.get(f"HEADRACE_{field.name.upper()}")
        if text is None or field.type == tuple[str, ...]:
            continue
        try:
            found[field.name] = msgspec.convert(text, field.type, strict=False)
        except (msgspec.ValidationError, UnicodeEncodeError) as error:
            why = "not UTF-8" if isinstance(error, UnicodeEncodeError) else error
            raise SettingsError(f"HEADRACE_{field.name.upper()}: {why}") from error
    return found


def _check_pages(settings: Settings) -> Settings:
    for name in ("perf_pages", "urgent_pages"):
        pages = getattr(settings, name)
        if pages & (pages - 1):
            raise SettingsError(f"--{name.replace('_', '-')}: {pages} is not a power of two")
    return settings


def _check_texts(settings: Settings) -> Settings:
    """SettingsError if a text contains a NUL. A path cannot contain one, and no other setting uses it."""
    for name in settings.__struct_fields__:
        value = getattr(settings, name)
        if "\0" in "".join(value if isinstance(value, tuple) else [value] if isinstance(value, str) else []):
            raise SettingsError(f"{OPTIONS.get(name, '--' + name.replace('_', '-'))}: a text with a NUL in it")
    return settings


def resolve(file: Path | None, flags: dict[str, Any]) -> Settings:
    """Resolve defaults, then the file, the environment, and the flags whose value is not None. SettingsError."""
    values = read_file(file) if file else {}
    if file:
        try:
            msgspec.convert(values, Settings)
        except msgspec.ValidationError as error:
            raise _explain(error, str(file)) from error
    values |= from_environment(os.environ)
    values |= {key: value for key, value in flags.items() if value is not None}
    try:
        return _check_texts(_check_pages(msgspec.convert(values, Settings)))
    except msgspec.ValidationError as error:
        key = _named(str(error))
        option = OPTIONS.get(key or "", f"--{key.replace('_', '-')}" if key else "options")
        raise _explain(error, option) from error
    except UnicodeEncodeError as error:
        raise SettingsError(f"options: not UTF-8: {error.object}") from error
