"""`headrace check --live`, for real: every event that this host has comes."""

from __future__ import annotations

import json

import pytest

from headrace.pipeline.host.proof import NOT_CAUSED, claimed
from tests.live import headrace

pytestmark = pytest.mark.kernel


def test_every_event_that_is_claimed_comes() -> None:
    done = headrace("check", "--live", "-o", "json")
    told = json.loads(done.stdout)
    live = told["live"]
    assert (done.returncode, live["missing"], live["error"]) == (0, [], ""), (done.stderr, live)
    names = {event.name for event in claimed(frozenset())}
    assert {*live["arrived"], *live["not_caused"]} == names
    assert {*live["not_caused"]} <= {*NOT_CAUSED}
    assert min(live["arrived"].values()) > 0
    assert live["ledger"]["balanced"]
    assert {finding["name"] for finding in told["findings"]} >= {"BTF", "programs", "live"}
