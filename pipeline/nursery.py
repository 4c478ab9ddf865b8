"""What the fork server imports before it forks the processes of the pipeline (multiprocessing's `forkserver`).

The imports are done once and shared by all: a stage starts in some milliseconds, after a death too. The
fork server has nothing of the supervisor's that a stage is not given: no BPF objects, no threads. To
import this is to become it: nothing else may.

A signal to the process group, from a terminal or from timeout(1), is for the supervisor alone. When the
supervisor ends, this is killed, and so is every stage.
"""

from __future__ import annotations

from pipeline import enricher, hashes, privilege, process, publisher, reader, recording, signals
from workers import process as worker

STAGES = (enricher, hashes, process, publisher, reader, recording, worker)

signals.ignore_all()
privilege.die_with_parent()
process.call_it("nursery")
