"""What a kept heap is good for: arrays that come and go cost no page faults."""

from __future__ import annotations

import subprocess
import sys

FAULTS = """
import resource, sys
import numpy as np
from headrace.pipeline.process import heap
if sys.argv[1] == "keep":
    heap.keep()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(3 << 20)
before = faults()
for _ in range(20):
    np.ones(3 << 20)
print(faults() - before)
"""


def faults(how: str) -> int:
    """Page faults of 20 arrays of 24 MiB, one after the other, when one has been there before."""
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_arrays_that_come_and_go_cost_no_page_faults() -> None:
    kept = faults("keep")
    assert kept < 100
    assert faults("leave") > kept + 100
