"""Docker and podman, by the Docker Engine API."""

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
PIECE_BYTES, LONGEST_LINE = 4096, 64 << 10
API_VERSION = "1.40"
"""Docker 19.03, podman 3."""


def _read_bounded(response: Any, **_: Any) -> None:
    """A hook of requests: takes an answer in, unless it is longer than any could be."""
    data = b""
    for part in response.iter_content(1 << 16):
        data += part
        if len(data) > MAX_BYTES:
            raise ValueError("too long")
    response._content = data


def _lines(response: Any) -> Iterator[bytes]:
    """Lines of a stream, as soon as each is there; ValueError if one is longer than any could be."""
    rest = b""
    for piece in response.iter_content(PIECE_BYTES):
        *whole, rest = (rest + piece).split(b"\n")
        yield from filter(None, whole)
        if len(rest) > LONGEST_LINE:
            raise ValueError("too long")


def _name(names: list[str]) -> str:
    """A container's own, among those that others link to it by."""
    return min((word(name).removeprefix("/") for name in names), key=lambda name: name.count("/"), default="")


class DockerClient:
    """Docker, or podman's service."""

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
            # in a list, since Docker does not answer `inspect` about a container that it is starting
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
        """What the container was made from: a list has the image's id, when that name is another's by now."""
        if listed != image:
            return listed
        with contextlib.suppress(NotFound):
            return word(self._api.inspect_container(container)["Config"]["Image"])
        return listed

    def _digest(self, image: str) -> str:
        """The digest of an image in its registry; its id if it is of none."""
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
            # not by the SDK, which takes in whatever comes until it makes sense
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
