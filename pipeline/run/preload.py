"""Modules that the fork server imports for a particular run, in addition to those for every run (nursery.py). It
imports them early because stages may not be able to read their folders.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from headrace.config.outputs import Output
from headrace.config.rules import Rule
from headrace.config.runtimes import Endpoint
from headrace.pipeline.containers.enricher import client_module


def modules_for(rules: Sequence[Rule], sinks: Sequence[Output], endpoints: Sequence[Endpoint]) -> list[str]:
    """Names of the modules that Python signatures, outputs and container runtimes of this run need."""
    found = {client_module(endpoint) for endpoint in endpoints}
    if any(sink.render == "arrow" for sink in sinks):
        found |= {"headrace.workers.views.arrow", "pyarrow.compute"}
    for source in {rule.source for rule in rules if rule.code}:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module)
    return sorted(found)
