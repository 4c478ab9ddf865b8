"""Replays a recording through the same workers. There is no kernel side; the replayer takes the place of the reader."""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing import connection
from pathlib import Path

import msgspec

from headrace.bpf.layout import EXTRA_SLOTS
from headrace.bpf.tables.catalogue import catalogue
from headrace.config.rules import Rule
from headrace.config.settings import MAX_RING_BYTES, Settings
from headrace.pipeline.process.books import Ledger
from headrace.pipeline.process.plan import Host
from headrace.pipeline.process.signals import Stopper
from headrace.pipeline.run.assemble import replay_pipeline
from headrace.pipeline.run.request import Outcome, Request, print_headers
from headrace.pipeline.run.stage import PipelineFailed, reader_stage, sink_status
from headrace.pipeline.stages import recording, replayer
from headrace.workers.detect.offline.inputs import Recorded, said

TURNS_IN_RING = 2
"""The frames that have to be held, and as much again for what is written meanwhile, and for the ring's end."""


def _add_uncovered(ledger: Ledger, rules: Sequence[Rule], facts: recording.RecordingFacts) -> None:
    """Add the signatures that the recording cannot support, completely or in part."""
    recorded = Recorded(facts.events, facts.reads, facts.narrowed, facts.users is not None)
    gaps = recorded.gaps(rules, catalogue(), ledger.by_event.keys())
    ledger.uncovered = {gap.rule: f"{gap.word}: {'; '.join(gap.reasons)}" for gap in gaps}
    ledger.remarks = said(gaps, len(rules))


def _recorded_host(facts: recording.RecordingFacts) -> Host:
    return Host(
        cpus=max(facts.cpus, 1),
        boot_epoch_ns=facts.boot_epoch_ns,
        nodename=facts.nodename.encode(),
        slots=facts.shards + EXTRA_SLOTS,
        started_ns=facts.started_ns,
    )


def _with_room(settings: Settings, turn: int, path: Path) -> Settings:
    """Settings whose rings hold the recording's longest turn: a worker releases frames only after a watermark, and a
    replay drops nothing. RecordingError if no ring can be that large.
    """
    needed = TURNS_IN_RING * turn
    if needed > MAX_RING_BYTES:
        raise recording.RecordingError(
            f"{path}: {turn} bytes have to be held at a time; a replay can hold {MAX_RING_BYTES // 2}"
        )
    return msgspec.structs.replace(settings, ring_bytes=max(settings.ring_bytes, needed))


def replay(request: Request, path: Path) -> Outcome:
    """Replay a recording. Raises RecordingError if it cannot be read; damage found later gives status EX_DAMAGED."""
    file = recording.opened(path)
    data = recording.mapped(file, str(path))
    facts, at = recording.read_facts(data, str(path))
    named = request.settings.events != "*"
    # there is no kernel side that filters: all conditions apply in the workers
    selection = request.selection.beside(request.selection.events)
    settings = _with_room(request.settings, recording.turn_bytes(data, at), path)
    only = request.selection.events if named else None
    pipeline = replay_pipeline(request, settings, _recorded_host(facts), selection.conditions, only, facts)
    stopper = Stopper()
    status = 0
    try:
        print_headers(request, pipeline.columns)
        pipeline.start()
        pipeline.start_source(reader_stage(replayer.replay, file, str(path)))
        while not all(stage.finished for stage in pipeline.stages):
            connection.wait([stopper.fd, *pipeline.sentinels()], 0.5)
            if stopper.hung_up():
                pipeline.reopen_outputs()
            if stopper.signals:
                status = 128 + stopper.signals[0]
                break
            try:
                pipeline.attend()
            except PipelineFailed as failure:
                status = failure.status
                if status != recording.EX_DAMAGED:
                    # the workers will not receive END
                    pipeline.kill()
                    break
        abandoned = status not in (0, recording.EX_DAMAGED)
        status = status or sink_status(pipeline.control)
        if abandoned:
            pipeline.kill()
        ledger = pipeline.books(catalogue(), abandoned)
        ledger.produced = ledger.cross_checks["events_received"] - ledger.announced
        ledger.close(abandoned)
        _add_uncovered(ledger, request.rules, facts)
        return Outcome(status, ledger)
    finally:
        stopper.close()
        pipeline.close()
        file.close()
