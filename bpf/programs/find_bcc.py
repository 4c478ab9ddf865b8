"""Locates the distribution's bcc package. A virtual environment does not see it, and the PyPI package of the same name
is a different project.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

PLACES = ("/usr/lib/python3/dist-packages", "/usr/lib/python3*/site-packages", "/usr/lib64/python3*/site-packages")
"""Folders of Debian and Ubuntu, then those of Fedora, RHEL, openSUSE and Arch."""
ITS_OWN = "libbcc.py"
"""A file that distinguishes bcc from the PyPI package."""


def found() -> ModuleSpec | None:
    """The package, from this environment or from the distribution's folders; None if it is not installed."""
    for spec in _candidates():
        if spec.origin and Path(spec.origin).with_name(ITS_OWN).exists():
            return spec
    return None


def _candidates() -> Iterator[ModuleSpec]:
    inside = importlib.util.find_spec("bcc")
    if inside:
        yield inside
    for place in PLACES:
        top = Path(place)
        for folder in sorted(Path("/").glob(f"{top.relative_to('/')}/bcc")):
            spec = importlib.util.spec_from_file_location(
                "bcc", folder / "__init__.py", submodule_search_locations=[str(folder)]
            )
            if spec:
                yield spec


def imported() -> ModuleType:
    """The bcc module. Raises ImportError if it is not installed."""
    if already := sys.modules.get("bcc"):
        return already
    spec = found()
    if spec is None or spec.loader is None:
        raise ImportError("no package bcc of the distribution (Debian: python3-bpfcc)")
    module = importlib.util.module_from_spec(spec)
    sys.modules["bcc"] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules["bcc"]
        raise
    return module
