"""Selects the view that a worker renders with, by format."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from headrace.bpf.tables.catalogue import Catalogue
from headrace.workers.enrich.containers import AccountNames, Describe
from headrace.workers.enrich.executables import Executables
from headrace.workers.enrich.tree import ProcessTree
from headrace.workers.records.rows import Rows
from headrace.workers.views.columns import ColumnsView
from headrace.workers.views.json_lines import JsonStyle
from headrace.workers.views.lineage import Lineages
from headrace.workers.views.named import Named
from headrace.workers.views.pieces import Lines
from headrace.workers.views.style import HostFacts
from headrace.workers.views.table import TableStyle

if TYPE_CHECKING:
    from headrace.workers.views.arrow import ArrowView


class Options(Protocol):
    """Rendering options (pipeline/process/plan.py)."""

    @property
    def parse_arguments(self) -> bool: ...
    @property
    def detect_syscall(self) -> bool: ...
    @property
    def stack_addresses(self) -> bool: ...
    @property
    def hidden(self) -> tuple[str, ...]: ...
    @property
    def colour(self) -> bool: ...
    @property
    def columns(self) -> int: ...


def view_of(
    name: str,
    options: Options,
    catalogue: Catalogue,
    facts: HostFacts,
    tree: ProcessTree,
    executables: Executables | None,
    describe: Describe,
    accounts: AccountNames | None,
    named: Named,
    tells: bool = True,
) -> Lines | ColumnsView | ArrowView:
    """The view of a format. `tells`: lines include process information, because all readers get every line."""
    parse = options.parse_arguments
    if name == "json":
        json = JsonStyle(facts, options.detect_syscall, tree.executable, options.stack_addresses, describe, accounts)
        lineages = Lineages(tree) if tells else None
        return Lines(catalogue, json, parse, executables, options.hidden, named, lineages)
    if name == "table":
        table = TableStyle(facts, options.colour, options.columns)
        return Lines(catalogue, table, parse, executables, options.hidden, named)
    if name == "arrow":
        from headrace.workers.views.arrow import ArrowView  # optional dependency

        return ArrowView(catalogue, facts, parse, tree.executable, executables, describe, named)
    return ColumnsView(catalogue, facts, parse)


def forget_who(views: Iterable[Lines | ColumnsView | ArrowView]) -> None:
    """Invalidate cached process identities after container information has changed."""
    for view in views:
        if isinstance(view, Lines):
            view.forget_who()


def unsay(view: Lines | ColumnsView | ArrowView) -> None:
    """Undo the last render: its lines are not written but rendered again."""
    if isinstance(view, Lines):
        view.unsay()


def part_of(render: str, rows: Rows, chosen: slice) -> Rows:
    """Some of the rows. For columns with blobs, the cells are reduced to these rows, so the part is smaller."""
    part = rows.select(chosen)
    return part.trim() if render == "columns" and part.blobs.any() else part
