"""Sigma rules, as pySigma and we read them: refused with a reason, or loaded, compiled and evaluated."""

from __future__ import annotations

from collections.abc import Iterator

from headrace.bpf.tables.catalogue import catalogue
from headrace.workers.detect.rules.rulesets import build
from tests.fuzz.files import unhinted, written
from tests.fuzz.seeds import SIGMA
from tests.fuzz.signatures import used

FORM = "yaml"
EACH = 1
TOKENS = (
    b"detection:",
    b"condition: ",
    b"1 of them",
    b"all of sel*",
    b" and ",
    b" or not ",
    b"|contains",
    b"|endswith",
    b"|re",
    b"|cidr",
    b"|base64offset",
    b"|utf16le",
    b"|windash",
    b"|expand",
    b"|fieldref",
    b"|exists",
    b"|hour",
    b"|gt",
    b"|neq",
    b"category: file_event",
    b"service: auditd",
    b"logsource:",
    b"correlation:",
    b"filter:",
    b"null",
    b"'*'",
    b"\\*",
    b"---\n",
    b"\\ud800",
    b"79.5",
    b"1000000000000000000000000000000",
)


def seeds() -> Iterator[bytes]:
    """Rules, filters and a correlation."""
    yield from (text.encode() for text in SIGMA)
    yield "---\n".join(SIGMA[:5]).encode()


@unhinted()
def target(data: bytes) -> None:
    with written(data, ".yml") as path:
        used(build(catalogue(), (), shipped=False, sigma=(path,), keywords=bool(len(data) % 2)))
