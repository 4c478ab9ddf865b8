"""The table of rooms in ARCHITECTURE.md is what the folders are, and what their modules import."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest

from tests.architecture.test_rules import ROOT, name_of, ours, sources

PACKAGES = ("bpf", "config", "headrace", "pipeline", "workers")
ROW = re.compile(r"\| `(?P<room>[a-z._]+)` \| (?P<holds>[^|]+) \| (?P<imports>[^|]*)\|")
MAX_MODULES = 15
EVERYWHERE = "headrace"
"""For the version."""


def rows() -> dict[str, frozenset[str]]:
    """The rooms of the table, and what each may import."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    section = text.partition("\n## Rooms\n")[2].partition("\n## ")[0]
    found = [match for line in section.splitlines() if (match := ROW.fullmatch(line.strip()))]
    return {match["room"]: frozenset(re.findall(r"`([a-z._]+)`", match["imports"])) for match in found}


ROOMS = rows()


def room_of(module: str) -> str:
    """The room that a module stands in; a package is one itself."""
    return module if ROOT.joinpath(*module.split(".")).is_dir() else module.rpartition(".")[0]


def imported() -> dict[str, dict[str, list[str]]]:
    """By room and room that it imports from: which module imports which."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path in sources(*PACKAGES):
        module = name_of(path).removesuffix(".__init__")
        for other in ours(path):
            if room_of(other) not in (room_of(module), EVERYWHERE):
                found[room_of(module)][room_of(other)].append(f"{module} imports {other}")
    return found


IMPORTED = imported()


def test_the_table_is_read() -> None:
    assert len(ROOMS) > 20
    assert ROOMS["bpf.tables"] == {"bpf"}


def test_every_folder_of_modules_is_a_room() -> None:
    assert {room_of(name_of(path).removesuffix(".__init__")) for path in sources(*PACKAGES)} == set(ROOMS)


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_what_its_row_says_and_nothing_else(room: str) -> None:
    against = [line for other, lines in IMPORTED[room].items() if other not in ROOMS[room] for line in lines]
    assert against == []
    assert ROOMS[room] <= set(IMPORTED[room]), "its row names rooms that it does not import from"


def test_rooms_have_no_cycles() -> None:
    done: set[str] = set()

    def visit(room: str, above: tuple[str, ...]) -> None:
        assert room not in above, " -> ".join((*above[above.index(room) :], room))
        if room not in done:
            for inner in sorted(ROOMS[room]):
                visit(inner, (*above, room))
            done.add(room)

    for room in ROOMS:
        visit(room, ())


@pytest.mark.parametrize("room", [*sorted(ROOMS), "bench", "bench.detect", "bench.rig"])
def test_a_room_is_not_crowded(room: str) -> None:
    modules = [path for path in ROOT.joinpath(*room.split(".")).glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= MAX_MODULES
