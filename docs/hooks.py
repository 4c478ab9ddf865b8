"""What MkDocs calls while it builds the site (mkdocs.yml): pages from the root of the checkout, and links to them.

ARCHITECTURE.md, CHANGELOG.md and others stay where a reader of the checkout looks for them. The site has them below
`project/`. Links are written for the checkout; they are changed here to where the site has the page. Links to files
that are no page (sources, results of benchmarks) become plain text.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PROJECT = ("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
LINK = re.compile(r"(?<!\!)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s#]+)(?P<anchor>#[^)]*)?\)")
FENCE = re.compile(r"(^```.*?^```$)", re.M | re.S)


@cache
def pages() -> dict[str, str]:
    """Pages that do not stand in docs/: path in the checkout -> path in the site."""
    decisions = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "decisions").glob("*.md"))
    return {path: f"project/{path}" for path in (*PROJECT, *decisions)}


def place_in_site(path: str) -> str:
    """Where the site has a file of the checkout; "" if it has not."""
    if path.startswith("docs/") and (ROOT / path).is_file():
        return path.removeprefix("docs/")
    return pages().get(path, "")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the root."""
    for path, place in pages().items():
        files.append(File.generated(config, place, content=(ROOT / path).read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links as the site needs them, outside of code."""
    place = page.file.src_uri
    origin = place.removeprefix("project/") if place.startswith("project/") else f"docs/{place}"
    parts = FENCE.split(markdown)
    return "".join(part if part.startswith("```") else LINK.sub(_linked(origin, place), part) for part in parts)


def _linked(origin: str, place: str) -> Any:
    def replace(match: re.Match[str]) -> str:
        target = match["target"]
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        path = os.path.normpath(os.path.join(os.path.dirname(origin), target))
        if (ROOT / path).is_dir() and (ROOT / path / "README.md").is_file():
            path = f"{path}/README.md"
        found = place_in_site(path)
        if found:
            return f"[{match['text']}]({os.path.relpath(found, os.path.dirname(place) or '.')}{match['anchor'] or ''})"
        # a file that exists is no page; one that does not exist stays a link, which the build refuses
        return match["text"] if (ROOT / path).exists() else match[0]

    return replace
