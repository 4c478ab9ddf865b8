"""Generated pages are what the code says, and every command and setting is in them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from headrace.config.settings import Settings
from headrace.pipeline.command import reference

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", reference.PAGES)
def test_a_generated_page_is_what_the_code_says(page: str) -> None:
    shown = (reference.FOLDER / page).read_text()
    assert shown == reference.text_of(page), "python -m headrace.pipeline.command.reference"


def test_every_command_and_every_setting_is_there() -> None:
    commands, settings = reference.text_of("commands.md"), reference.text_of("configuration.md")
    assert all(f"\n## {name}\n" in commands for name, _ in reference.commands())
    assert all(f"\n| `{field.name}` |" in settings for field in msgspec.structs.fields(Settings))


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 150
