"""The container of a process context, as the kernel side has it (bpf/c/containers.h)."""

from __future__ import annotations

from typing import Any


def container_id(context: Any) -> str:
    """64 hexadecimal digits of one context (a CONTEXT scalar); "" on the host."""
    data = context["container"].tobytes()
    return data.hex() if any(data) else ""
