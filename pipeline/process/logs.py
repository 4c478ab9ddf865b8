"""Logging: structlog on standard error, one line per log event. Traced events are never logged individually.

Event names are constant, `<stage>.<noun>_<participle>`. Data from traced processes (arguments, paths, environment) is
never logged at level info or above.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from headrace.config.printable import escaped

LEVELS = ("debug", "info", "warning", "error")


def _escaped(logger: Any, method: str, event: Any) -> Any:
    """Escape all values: quoted text cannot add log lines or send control sequences to a terminal."""
    return {k: escaped(v.replace("\n", "\\n")) if isinstance(v, str) else v for k, v in event.items()}


def configure(level: str) -> None:
    """Set up logging in this process."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _escaped,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], sort_keys=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def logger(process: str) -> Any:
    """A logger with the process name bound to it."""
    return structlog.get_logger().bind(process=process)
