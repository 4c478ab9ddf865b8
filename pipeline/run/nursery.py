"""The nursery: the fork server of the pipeline (multiprocessing's `forkserver`), with everything that stages import.

It imports all modules once, and stages share them. A stage therefore starts in a few milliseconds, also when it is
restarted. The fork server inherits nothing from the supervisor that a stage must not have: no BPF objects, no threads.
Importing this module turns the process into the nursery; nothing but the fork server may import it.

The nursery ignores signals to the process group, from a terminal or timeout(1); the supervisor handles them. When the
supervisor ends, the kernel kills the nursery and every stage.
"""

from __future__ import annotations

import importlib

from headrace.pipeline.process import imports

with imports.quick():
    from headrace.bpf.tables.catalogue import catalogue
    from headrace.pipeline.capture import collector
    from headrace.pipeline.containers import enricher, hashes
    from headrace.pipeline.process import confine, privilege, signals
    from headrace.pipeline.process import entry as process
    from headrace.pipeline.publish import publisher
    from headrace.pipeline.stages import reader, recording, replayer
    from headrace.workers import process as worker

CODECS = "ascii latin_1 idna punycode unicode_escape raw_unicode_escape utf_16 utf_16_le utf_16_be utf_32 utf_8_sig"
EAGER = (
    *("headrace.workers.current", "headrace.workers.conditions.parts", "headrace.workers.detect.findings.shapes"),
    *("numpy.strings", "numpy.ma"),  # numpy imports them when they are first used
    *("multiprocessing.spawn", "multiprocessing.popen_forkserver"),
    *("multiprocessing.popen_spawn_posix", "multiprocessing.shared_memory", "multiprocessing.synchronize"),
    *("multiprocessing.resource_sharer", "traceback", "linecache", "tokenize", "unicodedata", "stringprep"),
    *(f"encodings.{name}" for name in CODECS.split()),
    # modules that Python signatures are likely to import
    *"json re ipaddress datetime fnmatch base64 binascii hashlib math string collections itertools functools".split(),
    *"operator statistics textwrap urllib.parse posixpath shlex time calendar bisect heapq decimal _strptime".split(),
)
"""Modules that stages may need later, when they can no longer read the folders of these modules."""
STAGES = (collector, enricher, hashes, process, publisher, reader, recording, replayer, worker)

with imports.quick():
    for _name in EAGER:
        importlib.import_module(_name)
    catalogue()  # reads its tables from files
signals.ignore_all()
process.call_it("nursery")
confine.library()
privilege.drop()
privilege.die_with_parent()
confine.confine("nursery")
