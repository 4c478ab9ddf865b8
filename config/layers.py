"""Where settings come from, and which one holds: defaults < profile < file < fragments < environment < flags.

    headrace.yaml           the file that -c names
    headrace.d/*.yaml       its fragments, in the order of their names

A list in a later layer replaces the list before it. Every layer is checked by itself, so that an error names the file,
the line and the key.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from headrace.bpf.tables.catalogue import did_you_mean
from headrace.config.files import FileError, text
from headrace.config.located import LocatedError, documents
from headrace.config.settings import (
    LISTS,
    OPTIONS,
    Settings,
    SettingsError,
    checked,
    converted,
    environment_name,
    fields_of_settings,
    from_environment,
    in_words,
)

PROFILES = Path(__file__).parent / "profiles"
DEFAULT = "default"
ENVIRONMENT_PROFILE = "HEADRACE_PROFILE"
PROFILE = "profile"
"""The only key of a file that is not a setting."""
POLICY = "policy"


@dataclass(frozen=True)
class Layer:
    """Settings of one origin. `places`: where each stands, such as `headrace.yaml:3`."""

    origin: str
    values: dict[str, Any]
    places: dict[str, str] = field(default_factory=dict)

    def place(self, key: str) -> str:
        """Where a key was set."""
        return self.places.get(key, self.origin)


@dataclass(frozen=True)
class Merged:
    """The settings that hold, and the place of each that is not a default."""

    settings: Settings
    places: dict[str, str]


def located(message: str, places: Mapping[str, str]) -> str:
    """An error message about an option, with the file and line if a file set it."""
    found = re.match(r"(--[a-z-]+)", message)
    key = next((k for k in Settings.__struct_fields__ if found and option_of(k) == found[1]), "")
    place = places.get(key, "")
    return f"{place}: {key}{message[len(found[1]) :]}" if found and ":" in place else message


def option_of(key: str) -> str:
    """The option of the command line that sets a key."""
    return OPTIONS.get(key, f"--{key.replace('_', '-')}")


def profiles() -> dict[str, Path]:
    """The profiles that ship, by name."""
    return {path.stem: path for path in sorted(PROFILES.glob("*.yaml"))}


def _profile(name: str, where: str) -> Layer:
    found = profiles()
    if name not in found:
        hint = did_you_mean(name, found)
        raise SettingsError(f"{where}: no such profile: {name} (there are: {', '.join(found)}){hint}")
    layer = read_file(found[name])
    return Layer(f"profile {name}", layer.values)


def _value(key: str, given: Any, where: str) -> Any:
    """The value of a key, converted to its type. SettingsError names the place."""
    kind = fields_of_settings()[key].type
    if kind in LISTS and isinstance(given, str):
        given = [given]
    try:
        return converted(given, kind)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{where}: {key}: {in_words(error)}") from error


def read_file(path: Path) -> Layer:
    """The keys of a configuration file. SettingsError if it cannot be read, or something in it is wrong."""
    if path.suffix == ".toml":
        return _read_toml(path)
    try:
        found = list(documents(text(path)))
    except FileError as error:
        raise SettingsError(f"{path}: {error}") from error
    except LocatedError as error:
        raise SettingsError(f"{path}:{error.line}: {error.why}") from error
    if len(found) > 1:
        raise SettingsError(f"{path}:{found[1].line}: more than one document")
    if not found or found[0].value is None:
        return Layer(str(path), {})
    if not isinstance(found[0].value, dict):
        raise SettingsError(f"{path}:{found[0].line}: settings are written KEY: VALUE")
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    lines = found[0].keys or {}
    for key, part in found[0].value.items():
        where = f"{path}:{lines.get(key, part.line)}"
        if key == PROFILE:
            if not isinstance(part.value, str):
                raise SettingsError(f"{where}: {key}: the name of a profile is wanted")
            values[key] = part.value
        elif key not in fields_of_settings():
            raise SettingsError(f"{where}: {_no_such(key)}")
        elif key == POLICY:
            values[key] = _value(key, [each.marked(str(path)) for each in part.parts()], where)
        else:
            values[key] = _value(key, part.plain(), where)
        places[key] = where
    return Layer(str(path), values, places)


def _no_such(key: str) -> str:
    return f"no such key: {key}" + did_you_mean(key.replace("-", "_"), [*fields_of_settings(), PROFILE])


def _read_toml(path: Path) -> Layer:
    """A file of the former format. It has no lines."""
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    except ValueError as error:  # not TOML, not UTF-8, or a number of more digits than Python accepts
        raise SettingsError(f"{path}: {error}") from error
    except RecursionError as error:
        raise SettingsError(f"{path}: nested too deeply") from error
    found = {}
    for key, value in values.items():
        if key not in fields_of_settings():
            raise SettingsError(f"{path}: {_no_such(key)}")
        found[key] = _value(key, value, str(path))
    return Layer(str(path), found)


def fragments(path: Path) -> Iterator[Layer]:
    """The fragments beside a file, in the order of their names."""
    folder = path.with_suffix(".d")
    if folder.is_dir():
        for one in sorted(folder.glob("*.yaml")):
            yield read_file(one)


def layers(file: Path | None, flags: Mapping[str, Any], profile: str = "") -> list[Layer]:
    """The layers of a run, the weakest first. `flags`: options, None if they were not given. Raises SettingsError."""
    files = [read_file(file), *fragments(file)] if file else []
    named = [(profile, "--profile")] if profile else []
    if not named and (text := os.environ.get(ENVIRONMENT_PROFILE)):
        named.append((text, ENVIRONMENT_PROFILE))
    if not named:
        named += [(layer.values[PROFILE], layer.place(PROFILE)) for layer in files[::-1] if PROFILE in layer.values][:1]
    found = [_profile(*each) for each in named]
    for layer in files:
        found.append(Layer(layer.origin, {k: v for k, v in layer.values.items() if k != PROFILE}, layer.places))
    given = from_environment(os.environ)
    found.append(Layer("the environment", given, {key: environment_name(key) for key in given}))
    options = {key: value for key, value in flags.items() if value is not None}
    found.append(Layer("the command line", options, {key: option_of(key) for key in options}))
    return found


def merged(found: list[Layer]) -> Merged:
    """The settings that hold. Raises SettingsError."""
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for layer in found:
        values |= layer.values
        places |= {key: layer.place(key) for key in layer.values}
    try:
        return Merged(checked(values), places)
    except SettingsError as error:
        raise SettingsError(located(str(error), places)) from error


def resolve(file: Path | None, flags: Mapping[str, Any], profile: str = "") -> Merged:
    """Defaults, then the profile, the file, its fragments, the environment and the flags. Raises SettingsError."""
    return merged(layers(file, flags, profile))
