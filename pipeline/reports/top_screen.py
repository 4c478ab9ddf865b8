"""The screen of `headrace top` (top.py), for 80x24 and more."""

from __future__ import annotations

import time
from pathlib import Path
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Footer, Input, Static

from headrace.config.printable import escaped
from headrace.pipeline.process.books import Ledger
from headrace.pipeline.reports.feed import INTERVAL_S, VIEWS, Feed, Rates, status
from headrace.pipeline.run import live

SHOWN_FINDINGS = 4


class TopScreen(App[None]):
    """Reads the feed and the ledger every second."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #status { height: 1; background: $primary; color: $text; }
    #rows { height: 1fr; }
    #pattern { height: 1; border: none; display: none; }
    #findings { height: 4; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("e", "view('event')", "events"),
        Binding("p", "view('process')", "processes"),
        Binding("c", "view('container')", "containers"),
        Binding("t", "total", "rate/total"),
        Binding("slash", "filter", "filter"),
        Binding("escape", "unfilter", show=False),
        Binding("q", "quit", "quit"),
    ]

    def __init__(self, feed: Feed, socket: Path) -> None:
        super().__init__()
        self.feed, self._path = feed, socket
        self.shown, self.by_total, self.pattern = VIEWS[0], False, ""
        self._rates, self._looked = Rates(), time.monotonic()
        self._ledger: Ledger | None = None

    def compose(self) -> ComposeResult:
        """The status, the table, the filter, the findings and the keys."""
        yield Static("starting", id="status", markup=False)
        yield DataTable[str](id="rows", cursor_type="none", zebra_stripes=True)
        yield Input(placeholder="part of a name", id="pattern")
        yield Static("", id="findings", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        """Begin to look."""
        self._head()
        self.set_interval(INTERVAL_S, self.look)

    def _head(self) -> None:
        rows = self.query_one("#rows", DataTable)
        rows.clear(columns=True)
        rows.add_columns(self.shown.upper(), "EVENTS/S", "TOTAL")

    def look(self) -> None:
        """Show what has changed."""
        now = time.monotonic()
        took_s, self._looked = max(0.001, now - self._looked), now
        ledger, before = live.ask(self._path), self._ledger
        self._ledger = ledger or before
        words = "the run has ended" if self.feed.ended else status(ledger, before, took_s)
        self.query_one("#status", Static).update(words + (f"  filter: {self.pattern}" if self.pattern else ""))
        rows = self.query_one("#rows", DataTable)
        rows.clear()
        for name, rate, total in self._rates.rows(self.feed, self.shown, self.by_total, self.pattern, took_s):
            rows.add_row(escaped(name), f"{rate:>10,.0f}", f"{total:>12,}")
        latest = list(self.feed.findings)[:SHOWN_FINDINGS]
        self.query_one("#findings", Static).update("\n".join(latest) or "no findings")

    def action_view(self, name: str) -> None:
        """Choose what a line is about."""
        self.shown = name
        self._head()
        self.look()

    def action_total(self) -> None:
        """Sort by total, or by rate."""
        self.by_total = not self.by_total
        self.look()

    def action_filter(self) -> None:
        """Ask for a part of names."""
        field = self.query_one("#pattern", Input)
        field.display = True
        field.focus()

    def action_unfilter(self) -> None:
        """Show all names again."""
        self.query_one("#pattern", Input).value = ""
        self._filtered("")

    def on_input_submitted(self, message: Input.Submitted) -> None:
        """Take the filter."""
        self._filtered(message.value)

    def _filtered(self, pattern: str) -> None:
        self.pattern = pattern
        field = self.query_one("#pattern", Input)
        field.display = False
        self.set_focus(None)
        self.look()
