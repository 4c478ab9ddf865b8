"""Selects the view that a worker renders with, by format."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from headrace.bpf.tables.catalogue import Catalogue
from headrace.config import templates
from headrace.config.outputs import TEMPLATE
from headrace.config.policies.claims import Claim
from headrace.workers.enrich.containers import AccountNames, Describe, nobody
from headrace.workers.enrich.executables import Executables
from headrace.workers.enrich.tree import ProcessTree
from headrace.workers.records.rows import Rows
from headrace.workers.views.columns import ColumnsView
from headrace.workers.views.json_lines import JsonStyle
from headrace.workers.views.lineage import Lineages
from headrace.workers.views.named import Named, unasked
from headrace.workers.views.pieces import Lines
from headrace.workers.views.story import StoryStyle
from headrace.workers.views.style import HostFacts
from headrace.workers.views.table import TableStyle
from headrace.workers.views.template import TemplateLines

if TYPE_CHECKING:
    from headrace.workers.views.arrow import ArrowView


View: TypeAlias = "Lines | TemplateLines | ColumnsView | ArrowView"
LINE_VIEWS = (Lines, TemplateLines)


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
    @property
    def verbose(self) -> bool: ...
    @property
    def claims(self) -> tuple[Claim, ...]: ...


@dataclass(frozen=True)
class Sources:
    """What views read in addition to rows and contexts."""

    options: Options
    catalogue: Catalogue
    facts: HostFacts
    tree: ProcessTree
    executables: Executables | None = None
    describe: Describe = nobody
    accounts: AccountNames | None = None
    named: Named = unasked


def view_of(name: str, sources: Sources, with_lineage: bool = True) -> View:
    """The view of a format. `with_lineage`: lines include process information, because all readers get every line."""
    options, catalogue, facts, tree = sources.options, sources.catalogue, sources.facts, sources.tree
    executables, describe, named = sources.executables, sources.describe, sources.named
    parse = options.parse_arguments
    if name == "json" or name.startswith(TEMPLATE):
        json = JsonStyle(
            facts,
            options.detect_syscall,
            tree.executable,
            options.stack_addresses,
            describe,
            sources.accounts,
            options.claims,
        )
        lineages = Lineages(tree) if with_lineage and name == "json" else None
        lines = Lines(catalogue, json, parse, executables, options.hidden, named, lineages)
        return lines if name == "json" else TemplateLines(templates.parse(name.removeprefix(TEMPLATE)), lines)
    if name in ("table", "story"):
        table = (StoryStyle if name == "story" else TableStyle)(facts, options.colour, options.columns, options.verbose)
        return Lines(catalogue, table, parse, executables, options.hidden, named)
    if name == "arrow":
        from headrace.workers.views.arrow import ArrowView  # optional dependency

        return ArrowView(catalogue, facts, parse, tree.executable, executables, describe, named, options.claims)
    return ColumnsView(catalogue, facts, parse, options.claims)


def forget_who(views: Iterable[View]) -> None:
    """Invalidate cached process identities after container information has changed."""
    for view in views:
        if isinstance(view, LINE_VIEWS):
            view.forget_who()


def unsay(view: View) -> None:
    """Undo the last render: its lines are not written but rendered again."""
    if isinstance(view, LINE_VIEWS):
        view.unsay()


def part_of(render: str, rows: Rows, chosen: slice) -> Rows:
    """Some of the rows. For columns with blobs, the cells are reduced to these rows, so the part is smaller."""
    part = rows.select(chosen)
    return part.trim() if render == "columns" and part.blobs.any() else part
