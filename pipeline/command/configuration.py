"""`headrace config`: checks, shows and writes configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec
import yaml

from headrace.config import layers
from headrace.config.located import MARK
from headrace.config.policies import policy
from headrace.config.policies.policy import NAME
from headrace.config.settings import LISTS, Settings, SettingsError, fields_of_settings
from headrace.pipeline.command.options import meanings, output_options, trace_options
from headrace.pipeline.command.resolve import RunLimits, given, resolve
from headrace.pipeline.process.failure import EX_USAGE, Failure, say
from headrace.pipeline.shell.groups import Suggesting

WIDTH = 44
END = "...\n"
"""What PyYAML writes after a scalar."""


@click.group(cls=Suggesting)
def config() -> None:
    """Check, show or write configuration.

    \b
    Examples:
      headrace config init --profile host > /etc/headrace/headrace.yaml
      headrace config check /etc/headrace/headrace.yaml
      headrace config show -c /etc/headrace/headrace.yaml
      headrace config convert old.toml > headrace.yaml
    """


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {key: part for key, part in value.items() if key != MARK}
    return value


def _line(key: str, value: Any) -> str:
    shown = str(yaml.safe_dump(_plain(value), default_flow_style=True, allow_unicode=True, width=10_000))
    return f"{key}: {shown.removesuffix(END).strip()}"


@config.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--profile", default="", metavar="NAME", help="The profile that the run will start from.")
def check(file: Path, profile: str) -> None:
    """Check a configuration file, its fragments, and whether a run could begin with it. The exit status is 2 if not.

    Keys, types and ranges are checked, and then what a run would make of them: events, scopes, outputs, signatures.
    Nothing is traced or written.
    """
    request = resolve(file, {}, limits=RunLimits(profile=profile))
    found = [file, *(Path(layer.origin) for layer in layers.fragments(file))]
    names = ", ".join(map(str, found))
    events = len(request.selection.events)
    say(f"{names}: well ({events} events, {len(request.rules)} signatures, {len(request.sinks)} outputs)")


@config.command(context_settings={"allow_interspersed_args": False})
@output_options
@trace_options
def show(config: Path | None, profile: str, pids: tuple[str, ...], **flags: Any) -> None:
    """Show every setting that would hold, and where it comes from.

    Takes the options of `run`.
    """
    options = {key: value for key, value in given(flags, pids).items() if key in fields_of_settings()}
    try:
        found = layers.resolve(config, options, profile)
    except SettingsError as error:
        raise Failure(str(error), EX_USAGE) from error
    for key in fields_of_settings():
        line = _line(key, getattr(found.settings, key))
        say(f"{line:<{WIDTH}}  # {found.places.get(key, layers.DEFAULT)}")


@config.command()
@click.option("--profile", default="", metavar="NAME", help="Begin with the settings of a profile.")
def init(profile: str) -> None:
    """Print a configuration file with every key, its meaning and its default, to be edited."""
    try:
        chosen = layers.merged(layers.layers(None, {}, profile)[:1] if profile else [])
    except SettingsError as error:
        raise Failure(str(error), EX_USAGE) from error
    say("# Configuration of headrace. A key without # in front differs from its default.", "")
    if profile:
        say(f"profile: {profile}", "")
    told = meanings()
    defaults = Settings()
    for key in fields_of_settings():
        say(f"# {told[key]}")
        say(f"# {_line(key, getattr(chosen.settings if key in chosen.places else defaults, key))}", "")


@config.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def convert(file: Path) -> None:
    """Print a TOML configuration of headrace 0.1 as YAML."""
    try:
        layer = layers.read_file(file)
    except SettingsError as error:
        raise Failure(str(error), EX_USAGE) from error
    for key, value in layer.values.items():
        say(_line(key, value))


@config.command()
def schema() -> None:
    """Print the JSON Schema of configuration files, for editors."""
    say(schema_text().rstrip())


def _policy_schema() -> dict[str, Any]:
    """The JSON Schema of a policy in a configuration file."""
    texts = {"anyOf": [{"items": {"type": "string"}, "type": "array"}, {"type": "string"}]}
    properties: dict[str, Any] = {"name": {"type": "string", "pattern": f"^{NAME.pattern}$"}}
    properties |= {"description": {"type": "string"}, **dict.fromkeys(policy.LISTS, texts)}
    return {"type": "object", "additionalProperties": False, "required": ["name"], "properties": properties}


def schema_text() -> str:
    """The JSON Schema of configuration files (docs/config.schema.json)."""
    made = msgspec.json.schema(Settings)
    found = made["$defs"]["Settings"]
    told = meanings()
    for key, kind in found["properties"].items():
        kind["description"] = told[key]
        if fields_of_settings()[key].type in LISTS:
            item: dict[str, Any] = {"type": "string"}
            if key == layers.POLICY:
                item = {"anyOf": [item, _policy_schema()]}
            items = {"items": item, "type": "array"}
            found["properties"][key] = {"anyOf": [items, {"type": "string"}], "description": told[key]}
    found["properties"][layers.PROFILE] = {
        "enum": sorted(layers.profiles()),
        "description": "The profile to start from.",
    }
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://headrace.invalid/schema/config-1.json",
        "title": "Configuration of headrace",
        "type": "object",
        "additionalProperties": False,
        "properties": found["properties"],
    }
    return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode() + "\n"
