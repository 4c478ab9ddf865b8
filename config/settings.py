"""The settings of a run, their types, ranges and defaults. config/layers.py says where they come from."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cache
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
    policy: tuple[str | dict[str, Any], ...] = ()
    """Files and folders of policies, or policies themselves (config/policies/)."""
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
def fields_of_settings() -> dict[str, msgspec.structs.FieldInfo]:
    """The keys. Cached, because listing them takes milliseconds."""
    return {field.name: field for field in msgspec.structs.fields(Settings)}


LISTS = (tuple[str, ...], tuple[str | dict[str, Any], ...])
"""Types of keys that hold a list."""


def environment_name(key: str) -> str:
    """The variable of the environment for a key."""
    return f"HEADRACE_{key.upper()}"


def converted(value: Any, kind: Any, strict: bool = True) -> Any:
    """The value in the type of its key. Raises msgspec.ValidationError."""
    return msgspec.convert(value, kind, strict=strict)


def in_words(error: msgspec.ValidationError) -> str:
    """What is wrong with a value, for a user."""
    text = str(error)
    limit = re.search(r"Expected `(?:int|float)` (>=|<=) (-?[0-9]+)(?:\.0)?", text)
    if limit:
        text = text.replace(limit[0], f"at {'least' if limit[1] == '>=' else 'most'} {limit[2]}")
    return text.split(" - at ")[0]


def from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """Settings from HEADRACE_WORKERS and similar variables: all except lists. SettingsError for an invalid value."""
    found: dict[str, Any] = {}
    for key, field in fields_of_settings().items():
        text = environment.get(environment_name(key))
        if text is None or field.type in LISTS:
            continue
        try:
            found[key] = converted(text, field.type, strict=False)
        except (msgspec.ValidationError, UnicodeEncodeError) as error:
            why = "not UTF-8" if isinstance(error, UnicodeEncodeError) else error
            raise SettingsError(f"{environment_name(key)}: {why}") from error
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
        parts = value if isinstance(value, tuple) else [value]
        if any("\0" in part for part in parts if isinstance(part, str)):
            raise SettingsError(f"{OPTIONS.get(name, '--' + name.replace('_', '-'))}: a text with a NUL in it")
    return settings


def checked(values: dict[str, Any]) -> Settings:
    """The settings with these values and defaults for all others. SettingsError names the option that is wrong."""
    try:
        return _check_texts(_check_pages(converted(values, Settings)))
    except msgspec.ValidationError as error:
        match = re.search(r"`\$\.?(\w+)", str(error))
        key = match[1] if match else ""
        option = OPTIONS.get(key, f"--{key.replace('_', '-')}") if key else "options"
        raise SettingsError(f"{option}: {in_words(error)}") from error
    except UnicodeEncodeError as error:
        raise SettingsError(f"options: not UTF-8: {error.object}") from error
