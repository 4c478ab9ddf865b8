"""`workers.detect.signature`, as `headrace.signature` was called before 0.2: files that import it are read for one
release more, with a warning.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import ModuleType

from headrace.workers.detect.code import signature

OLD_NAME = "workers.detect.signature"


@contextlib.contextmanager
def can_be_imported() -> Iterator[None]:
    """The old name can be imported within it, whether or not a folder `workers` is in reach."""
    parts = OLD_NAME.split(".")
    names = [".".join(parts[: n + 1]) for n in range(len(parts))]
    before = {name: sys.modules.get(name) for name in names}
    for name in names:
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = []
    sys.modules[OLD_NAME] = signature
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def warning(file: str, source: str) -> str:
    """What its author is told of a file of signatures; "" if it has the new name."""
    if f"from {OLD_NAME} import" not in source:
        return ""
    return (
        f"{file}: imports {OLD_NAME}, which is called headrace.signature now; the old name goes with the next release"
    )
