"""Client for containerd and CRI-O, using the Kubernetes Container Runtime Interface over gRPC (cri.proto)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from headrace.config.runtimes import Info
from headrace.pipeline.containers import cri_pb2
from headrace.pipeline.containers.runtimes import MAX_BYTES, TIMEOUT_S, Happened, Unavailable, of_labels, silence

SERVICE = "/runtime.v1.RuntimeService"
REASONS = {
    grpc.StatusCode.DEADLINE_EXCEEDED: "timeout",
    grpc.StatusCode.UNAVAILABLE: "no connection",
    grpc.StatusCode.UNIMPLEMENTED: "no CRI",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "nonsense",
}
cri: Any = cri_pb2
OPTIONS = [("grpc.max_receive_message_length", MAX_BYTES), ("grpc.max_reconnect_backoff_ms", 1000)]


class CriClient:
    """Client of a runtime that implements the CRI."""

    def __init__(self, path: str, labels: tuple[str, ...]) -> None:
        self._path, self._labels = path, labels
        self._calls: dict[str, Any] = {}

    def _open(self) -> None:
        if not Path(self._path).exists():
            raise Unavailable("no socket")
        channel = grpc.insecure_channel(f"unix://{self._path}", options=OPTIONS)
        for name in ("ContainerStatus", "PodSandboxStatus"):
            request, response = getattr(cri, f"{name}Request"), getattr(cri, f"{name}Response")
            self._calls[name] = channel.unary_unary(
                f"{SERVICE}/{name}",
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )

    def _status(self, name: str, container: str, request: Any) -> Any:
        """Status of a container or pod sandbox; None if there is none with that id. Raises Unavailable."""
        if not self._calls:
            self._open()
        try:
            found = self._calls[name](request, timeout=TIMEOUT_S).status
        except grpc.RpcError as error:
            code = error.code()
            if code == grpc.StatusCode.NOT_FOUND:
                return None
            raise Unavailable(REASONS.get(code, code.name.lower().replace("_", " "))) from error
        if found.id != container:
            raise Unavailable("nonsense")
        return found

    def look(self, container: str) -> Info | None:
        found = self._status("ContainerStatus", container, cri.ContainerStatusRequest(container_id=container))
        if found is not None:
            return Info(
                name=found.metadata.name,
                image=found.image.image,
                digest=found.image_ref.rpartition("@")[2],
                **of_labels(found.labels, self._labels),
            )
        pod = self._status("PodSandboxStatus", container, cri.PodSandboxStatusRequest(pod_sandbox_id=container))
        if pod is None:
            return None
        about = of_labels(pod.labels, self._labels)
        about |= {"pod": pod.metadata.name, "namespace": pod.metadata.namespace, "pod_uid": pod.metadata.uid}
        return Info(name="", **about)

    def events(self) -> Iterator[Happened]:
        # the CRI of containerd 1.6 has no events: changes are noticed when the container is looked up again
        return silence()
