"""Client for Docker and podman, using the Docker Engine API."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
from docker import APIClient
from docker.errors import APIError, DockerException, NotFound

from headrace.config.runtimes import Info
from headrace.pipeline.containers.runtimes import MAX_BYTES, TIMEOUT_S, Happened, Unavailable, of_labels, word

MAX_IMAGES = 256
PIECE_BYTES, MAX_LINE_BYTES = 4096, 64 << 10
API_VERSION = "1.40"
"""Supported since Docker 19.03 and podman 3."""


def _read_bounded(response: Any, **_: Any) -> None:
    """Response hook for requests: reads an answer. Raises ValueError if it exceeds MAX_BYTES."""
    data = b""
    for part in response.iter_content(1 << 16):
        data += part
        if len(data) > MAX_BYTES:
            raise ValueError("too long")
    response._content = data


def _lines(response: Any) -> Iterator[bytes]:
    """Yield the lines of a stream as they arrive. Raises ValueError if one exceeds MAX_LINE_BYTES."""
    rest = b""
    for piece in response.iter_content(PIECE_BYTES):
        *whole, rest = (rest + piece).split(b"\n")
        yield from filter(None, whole)
        if len(rest) > MAX_LINE_BYTES:
            raise ValueError("too long")


def _name(names: list[str]) -> str:
    """The container's own name, among the names under which other containers link to it."""
    return min((word(name).removeprefix("/") for name in names), key=lambda name: name.count("/"), default="")


class DockerClient:
    """Client of the Docker daemon or podman's service."""

    def __init__(self, path: str, labels: tuple[str, ...]) -> None:
        self._path, self._labels = path, labels
        self._api: Any = None
        self._digests: dict[str, str] = {}

    def _open(self, timeout_s: float | None) -> Any:
        if not Path(self._path).exists():
            raise Unavailable("no socket")
        api = APIClient(f"unix://{self._path}", version=API_VERSION, timeout=timeout_s)
        if timeout_s is not None:
            api.hooks["response"].append(_read_bounded)
        return api

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except requests.exceptions.JSONDecodeError as error:
            raise Unavailable("nonsense") from error
        except requests.exceptions.Timeout as error:
            raise Unavailable("timeout") from error
        except APIError as error:
            raise Unavailable(f"status {error.status_code}") from error
        except (requests.exceptions.RequestException, DockerException, OSError) as error:
            raise Unavailable("no connection") from error
        except (ValueError, TypeError, AttributeError, LookupError, RuntimeError) as error:
            # a RuntimeError is docker's StreamParseError, or a RecursionError
            raise Unavailable("nonsense") from error

    def look(self, container: str) -> Info | None:
        with self._asking():
            self._api = self._api or self._open(TIMEOUT_S)
            # use a list: Docker does not answer `inspect` for a container that is starting
            listed = self._api.containers(filters={"id": container}, all=True)
            if listed == []:
                return None
            (found,) = listed
            if found["Id"] != container:
                raise ValueError("another container")
            image = word(found["ImageID"])
            return Info(
                name=_name(found["Names"]),
                image=self._image(container, word(found["Image"]), image),
                digest=self._digest(image),
                **of_labels(found.get("Labels"), self._labels),
            )

    def _image(self, container: str, listed: str, image: str) -> str:
        """Name of the image that the container was created from.

        If that name now belongs to another image, the list shows an image id; `inspect` still has the name.
        """
        if listed != image:
            return listed
        with contextlib.suppress(NotFound):
            return word(self._api.inspect_container(container)["Config"]["Image"])
        return listed

    def _digest(self, image: str) -> str:
        """The digest of an image in its registry; its id if it has no digest."""
        known = self._digests.get(image)
        if known is None:
            try:
                digests = self._api.inspect_image(image).get("RepoDigests") or []
            except NotFound:
                digests = []
            known = word(digests[0]).rpartition("@")[2] if digests else image
            if len(self._digests) >= MAX_IMAGES:
                self._digests.clear()
            self._digests[image] = known
        return known

    def events(self) -> Iterator[Happened]:
        with self._asking(), contextlib.closing(self._open(None)) as api:
            # do not use the SDK here: it buffers input without limit until it parses
            url = f"{api.base_url}/v{API_VERSION}/events"
            response = api.get(url, params={"filters": '{"type": ["container"]}'}, stream=True)
            response.raise_for_status()
            yield Happened("", "listening")
            for line in _lines(response):
                event = json.loads(line)
                action = str(event.get("Action"))
                container = str(event.get("Actor", {}).get("ID") or event.get("id") or "")
                if action in ("create", "start", "rename", "update"):
                    yield Happened(container, "changed")
                elif action in ("destroy", "remove"):
                    yield Happened(container, "gone")
