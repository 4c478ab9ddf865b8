"""What the fork server imports before it forks the processes of the pipeline (multiprocessing's `forkserver`).

The imports are done once and shared by all: a stage starts in some milliseconds, after a death too. The
fork server has nothing of the supervisor's that a stage is not given: no BPF objects, no threads. To
import this is to become it: nothing else may.

A signal to the process group, from a terminal or from timeout(1), is for the supervisor alone. When the
supervisor ends, this is killed, and so is every stage.
"""

from __future__ import annotations

import importlib

from headrace.pipeline.process import imports

with imports.quick():
    from headrace.bpf.tables.catalogue import catalogue
    from headrace.pipeline.containers import enricher, hashes
    from headrace.pipeline.process import confine, privilege, signals
    from headrace.pipeline.process import entry as process
    from headrace.pipeline.publish import publisher
    from headrace.pipeline.stages import reader, recording
    from headrace.workers import process as worker

CODECS = "ascii latin_1 idna punycode unicode_escape raw_unicode_escape utf_16 utf_16_le utf_16_be utf_32 utf_8_sig"
EAGER = (
    *("headrace.workers.current", "headrace.workers.conditions.parts", "headrace.workers.detect.findings.shapes"),
    *("multiprocessing.spawn", "multiprocessing.popen_forkserver"),
    *("multiprocessing.popen_spawn_posix", "multiprocessing.shared_memory", "multiprocessing.synchronize"),
    *("multiprocessing.resource_sharer", "traceback", "linecache", "tokenize", "unicodedata", "stringprep"),
    *(f"encodings.{name}" for name in CODECS.split()),
    # what signatures in Python are likely to import
    *"json re ipaddress datetime fnmatch base64 binascii hashlib math string collections itertools functools".split(),
    *"operator statistics textwrap urllib.parse posixpath shlex time calendar bisect heapq decimal _strptime".split(),
)
"""What stages may need later, when the folder that it is in may be closed to them."""
STAGES = (enricher, hashes, process, publisher, reader, recording, worker)

with imports.quick():
    for _name in EAGER:
        importlib.import_module(_name)
    catalogue()  # its tables are files, too
signals.ignore_all()
process.call_it("nursery")
confine.library()
privilege.drop()
privilege.die_with_parent()
confine.confine("nursery")
