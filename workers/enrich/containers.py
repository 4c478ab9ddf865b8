"""The container of a process context, as the kernel side has it (bpf/c/containers.h)."""

from __future__ import annotations

from typing import Any

from bpf.layout import RUNTIMES


def runtime_of(context: Any) -> str:
    """The runtime's name of one context; "" on the host, and for a number that is none's."""
    number = int(context["runtime"])
    return RUNTIMES[number] if number < len(RUNTIMES) else ""


def container_id(context: Any) -> str:
    """64 hexadecimal digits of one context (a CONTEXT scalar); "" on the host."""
    data = context["container"].tobytes()
    return data.hex() if any(data) else ""
