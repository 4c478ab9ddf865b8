"""The one place where a Pipeline is put together: for a live run, and for a replay."""

from __future__ import annotations

from functools import partial

from headrace.bpf.tables.catalogue import Event
from headrace.config.filters import Condition
from headrace.config.settings import Settings
from headrace.pipeline.process.plan import Host
from headrace.pipeline.run.request import Request, coloured, terminal_columns
from headrace.pipeline.run.supervise import Pipeline
from headrace.pipeline.stages.recording import RecordingFacts
from headrace.workers.enrich.users import UNKNOWN


def live_pipeline(
    request: Request, host: Host, conditions: tuple[Condition, ...], only: tuple[Event, ...] | None
) -> Pipeline:
    """The processes of a live run. `only`: the events that outputs show, if that is not all."""
    settings = request.settings
    pipeline = _shared(request, settings, host, conditions, only)
    return pipeline(
        hidden=request.hidden,
        records=bool(settings.record),
        hashes=settings.exec_hash,
        endpoints=request.endpoints,
        capture=request.capture,
    )


def replay_pipeline(
    request: Request,
    settings: Settings,
    host: Host,
    conditions: tuple[Condition, ...],
    only: tuple[Event, ...] | None,
    facts: RecordingFacts,
) -> Pipeline:
    """The processes of a replay. `facts`: what the recording says of its host; nothing is asked of this one."""
    users = (facts.users.names, facts.users.others) if facts.users else UNKNOWN
    return _shared(request, settings, host, conditions, only)(hidden=facts.hidden, users=users)


def _shared(
    request: Request,
    settings: Settings,
    host: Host,
    conditions: tuple[Condition, ...],
    only: tuple[Event, ...] | None,
) -> partial[Pipeline]:
    """What both have."""
    return partial(
        Pipeline,
        settings,
        host,
        request.sinks,
        conditions,
        only=only,
        claims=request.claims,
        rules=request.rules,
        fold_s=request.fold_s,
        before_s=request.settings.before_s,
        colour=coloured(request.sinks),
        columns=terminal_columns(request.sinks),
    )
