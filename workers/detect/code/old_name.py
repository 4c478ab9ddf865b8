"""The module name `workers.detect.signature`, which 0.2 renamed to `headrace.signature`.

Files that import the old name still load for one more release, with a warning.
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
    """Makes the old name importable inside the `with` block, whether or not a folder `workers` is on the path."""
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
    """The warning for the author of a file that imports the old name; "" if it does not."""
    if f"from {OLD_NAME} import" not in source:
        return ""
    return (
        f"{file}: imports {OLD_NAME}, which is called headrace.signature now; the old name goes with the next release"
    )
