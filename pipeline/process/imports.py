"""Faster imports: without garbage collection (imports leave no garbage) and without OpenBLAS threads.

numpy starts one OpenBLAS thread per CPU when it is imported. headrace does no linear algebra.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator

THREADS = "OPENBLAS_NUM_THREADS"


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """Context for imports. Later garbage collections skip the objects created in it. Restores the environment."""
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
