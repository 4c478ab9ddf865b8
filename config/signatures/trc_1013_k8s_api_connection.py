"""A container connects to the Kubernetes API, whose address is in the environment of its processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.signature import Event, Result, Signature, State

VARIABLE = "KUBERNETES_SERVICE_HOST="
INSIDE = {"id": "c1", "started": True}
OTHER = {"id": "c2", "started": True}


def _run(container: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "event": "sched_process_exec",
        "args": {"pathname": "/bin/sh", "env": ["A=1", f"{VARIABLE}10.96.0.1"]},
        "container": container,
    }


def _connect(address: str, container: Mapping[str, Any]) -> dict[str, Any]:
    where = {"sa_family": "AF_INET", "sin_addr": address, "sin_port": "443"}
    return {"event": "security_socket_connect", "args": {"sockfd": 3, "remote_addr": where}, "container": container}


class KubernetesApiConnection(Signature):
    """TRC-1013. Keeps the address per container: any process that starts with the variable sets it."""

    id, name, severity, scope = "TRC-1013", "k8s_api_connection", "low", "container"
    title = "Kubernetes API server connection detected"
    description = "A process of a container connects to the Kubernetes API server."
    mitre = {"tactic": "Discovery", "technique": "Cloud Service Discovery", "id": "T1526"}
    state = "container"
    events = {
        "sched_process_exec": {"env|startswith": VARIABLE},
        "security_socket_connect": {"remote_addr.family": ["AF_INET", "AF_INET6"]},
    }
    shared = ("sched_process_exec",)
    fields = ("env", "remote_addr.ip")
    examples = {
        "match": [[_run(INSIDE), _connect("10.96.0.1", INSIDE)]],
        "near_miss": [
            [_run(INSIDE), _connect("10.96.0.2", INSIDE)],
            [_run(OTHER), _connect("10.96.0.1", INSIDE)],
            [_connect("10.96.0.1", INSIDE)],
        ],
    }

    def on_event(self, event: Event, state: State) -> Result:
        if event.name == "sched_process_exec":
            state["address"] = event["env"][-1].removeprefix(VARIABLE)
            return None
        address = event["remote_addr.ip"]
        return {"ip": address} if address is not None and address == state.get("address") else None
