"""The container of a process context: id and runtime come from the BPF programs (bpf/c/containers.h), further details
from its runtime as far as they are known (pipeline/containers/enrichment.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from headrace.bpf.layout import RUNTIME_ECS, RUNTIME_LXC, RUNTIMES
from headrace.config.runtimes import RuntimeAnswer

OFF = "off"


Describe = Callable[[Any], RuntimeAnswer | None]
"""Returns what is known of the container of a context (a CONTEXT scalar); None if the run asks no runtime."""


class AccountNames(Protocol):
    """Names of users and groups of the host; "" if there is none or it is not known yet."""

    def user(self, number: int) -> str: ...
    def group(self, number: int) -> str: ...


def nobody(context: Any) -> RuntimeAnswer | None:
    """The Describe of a run that asks no runtime."""
    return None


def runtime_name(number: int) -> str:
    """Name of a runtime; "" on the host and for an unknown number."""
    return RUNTIMES[number] if number < len(RUNTIMES) else ""


def runtime_of(context: Any) -> str:
    """Runtime name of a context (a CONTEXT scalar)."""
    return runtime_name(int(context["runtime"]))


def shown_id(data: bytes, runtime: int) -> str:
    """Container id from its 32 bytes (bpf/c/containers.h): 64 hexadecimal digits, a name, or an ECS task and its
    number; "" on the host.
    """
    if not any(data):
        return ""
    if runtime < RUNTIME_LXC:
        return data.hex()
    if runtime == RUNTIME_ECS:
        return f"{data[:16].hex()}-{data[16:].rstrip(bytes(1)).decode('ascii', 'replace')}"
    return data.rstrip(b"\0").decode("utf-8", "replace")


def container_id(context: Any) -> str:
    """Container id of a context (a CONTEXT scalar)."""
    return shown_id(context["container"].tobytes(), int(context["runtime"]))


def of_event(context: Any, describe: Describe) -> dict[str, object]:
    """Container keys of an event, as in docs/schema.json."""
    name = container_id(context)
    answer = describe(context) if name else None
    info = answer.known if answer else None
    found: dict[str, object] = {"containerId": name, "container": of_finding(context, describe, False)}
    found |= {
        "containerImage": info.image if info else "",
        "containerName": info.name if info else "",
        "podName": info.pod if info else "",
        "podNamespace": info.namespace if info else "",
        "podUID": info.pod_uid if info else "",
    }
    pod = {"podName": info.pod, "podNamespace": info.namespace, "podUID": info.pod_uid} if info and info.pod else {}
    found["kubernetes"] = pod
    if name:
        found["enrichment"] = answer.word if answer else OFF
    return found


def of_finding(context: Any, describe: Describe, whole: bool = True) -> dict[str, object]:
    """The container of a finding. For an event, `whole` is false: pod and state are omitted, since the event has keys
    for them.
    """
    name = container_id(context)
    if not name:
        return {}
    found: dict[str, object] = {"id": name, "runtime": runtime_of(context)}
    answer = describe(context)
    if answer and (info := answer.known):
        found |= {"name": info.name, "image": info.image, "imageDigest": info.digest}
        if info.labels:
            found["labels"] = info.labels
        if whole and info.pod:
            found["pod"] = {"name": info.pod, "namespace": info.namespace, "uid": info.pod_uid}
    return found | ({"enrichment": answer.word if answer else OFF} if whole else {})
