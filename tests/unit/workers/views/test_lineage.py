"""What a worker remembers of what its lines have told is bounded by the processes that there are."""

from __future__ import annotations

from headrace.bpf.tables.catalogue import catalogue
from headrace.workers.enrich import tree
from headrace.workers.enrich.tree import Process, ProcessTree
from headrace.workers.views.lineage import Lineages, _KnownProcess


def test_a_process_that_has_ended_and_is_forgotten_is_forgotten_here() -> None:
    known = ProcessTree(catalogue())
    lineages = Lineages(known)
    for pid in range(2 * tree.MAX_ENDED):
        key = pid, pid
        known._put(Process(key))
        lineages._told[key] = _KnownProcess((pid,), 0)
        known._ended_at(key, pid + 1)
        known._bound()
    assert len(lineages._told) == len(known) == tree.MAX_ENDED
    del lineages
    assert len(known.followers) == 0
