"""What the fork server imports for one run beside what every run needs (nursery.py): the stages may not be allowed to
read the folders that it is in.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from headrace.config.outputs import Output
from headrace.config.rules import Rule
from headrace.config.runtimes import Endpoint
from headrace.pipeline.containers.enricher import client_module


def modules_for(rules: Sequence[Rule], sinks: Sequence[Output], endpoints: Sequence[Endpoint]) -> list[str]:
    """Modules that signatures in Python, outputs and runtimes of containers need, and that not every run has."""
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
