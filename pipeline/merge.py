"""Lines of several workers in the order of time.

Workers hand over batches up to the same watermarks. Once all have passed one, its batches are merged by
(time, CPU, thread group): a key that no two workers share, so the result does not depend on how many
there are.
"""

from __future__ import annotations

import numpy as np

from pipeline.results import Result
from pipeline.shm import Array

Pieces = list[memoryview]


def merge(results: list[Result]) -> Pieces:
    """The lines of all results in order, as views: runs of one worker's lines stay in one piece."""
    if len(results) == 1:
        return [results[0].payload.data]
    keys = [result.key_columns() for result in results]
    time = np.concatenate([k[0] for k in keys])
    tie = np.concatenate([k[1] for k in keys])
    source = np.repeat(np.arange(len(results)), [len(k[0]) for k in keys])
    line = np.concatenate([np.arange(len(k[0])) for k in keys])
    order = np.lexsort((line, tie, time))
    source, line = source[order], line[order]
    breaks = np.flatnonzero((np.diff(source) != 0) | (np.diff(line) != 1)) + 1
    firsts = np.concatenate([[0], breaks])
    lasts = np.concatenate([breaks, [len(order)]]) - 1
    return _slices(results, keys, source[firsts].tolist(), line[firsts].tolist(), line[lasts].tolist())


def _slices(
    results: list[Result],
    keys: list[tuple[Array, Array, Array]],
    sources: list[int],
    firsts: list[int],
    lasts: list[int],
) -> Pieces:
    ends = [k[2].tolist() for k in keys]
    views = [result.payload.data for result in results]
    found = []
    for source, first, last in zip(sources, firsts, lasts, strict=True):
        end = ends[source]
        found.append(views[source][end[first - 1] if first else 0 : end[last]])
    return found
