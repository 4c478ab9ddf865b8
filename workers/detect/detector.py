"""What a worker has of signatures: the engine that finds, and the lines that tell."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bpf.catalogue import Catalogue
from config.rules import Rule
from workers.detect.engine import Engine, Matches
from workers.detect.findings import FindingLines, Rendered
from workers.enrich.tree import ProcessTree
from workers.rows import Contexts, Rows
from workers.views.pieces import Facts


def encode_rules(rules: Sequence[Rule]) -> bytes:
    """Rules that have been checked, for the workers."""
    return msgspec.msgpack.encode(list(rules))


class Detector:
    """Signatures of one generation."""

    def __init__(self, rules: Sequence[Rule], catalogue: Catalogue) -> None:
        self.rules = tuple(rules)
        self._engine = Engine(self.rules, catalogue)
        self._lines: FindingLines | None = None

    @classmethod
    def of(cls, encoded: bytes, catalogue: Catalogue) -> Detector:
        """From what encode_rules() gave."""
        return cls(msgspec.msgpack.decode(encoded, type=list[Rule]), catalogue)

    def open(self, catalogue: Catalogue, facts: Facts, tree: ProcessTree, secret: bytes, hidden: Sequence[str]) -> None:
        """Make ready to render."""
        self._lines = FindingLines(self.rules, catalogue, facts, tree, secret=secret, hidden=hidden)

    def match(self, rows: Rows, contexts: Contexts, tree: ProcessTree) -> Matches:
        """Rows that rules match."""
        return self._engine.match(rows, contexts, tree)

    def render(self, rows: Rows, contexts: Contexts, matches: Matches, part: slice) -> Rendered:
        """Their findings."""
        assert self._lines is not None
        return self._lines.render(rows, contexts, matches, part)
