"""What makes imports quick: no collection of garbage meanwhile, as there is none, and no threads of OpenBLAS.

numpy starts these as it is imported, one a CPU; nothing here multiplies matrices.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator

THREADS = "OPENBLAS_NUM_THREADS"


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """Imports within it. What they made is never looked through again; the environment is as it was."""
    before = os.environ.get(THREADS)
    os.environ[THREADS] = "1"
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        del os.environ[THREADS]
        if before is not None:
            os.environ[THREADS] = before
