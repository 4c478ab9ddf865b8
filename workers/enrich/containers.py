"""The container of a process context, as the kernel side has it (bpf/c/containers.h)."""

from __future__ import annotations

from typing import Any

from bpf.layout import RUNTIMES


def runtime_name(number: int) -> str:
    """A runtime's name; "" on the host, and for a number that is none's."""
    return RUNTIMES[number] if number < len(RUNTIMES) else ""


def runtime_of(context: Any) -> str:
    """The same of one context (a CONTEXT scalar)."""
    return runtime_name(int(context["runtime"]))


def shown_id(data: bytes) -> str:
    """64 hexadecimal digits of a container's 32 bytes; "" on the host."""
    return data.hex() if any(data) else ""


def container_id(context: Any) -> str:
    """The same of one context (a CONTEXT scalar)."""
    return shown_id(context["container"].tobytes())
