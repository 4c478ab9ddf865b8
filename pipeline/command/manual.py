"""Writes the man pages, from the same help as `--help`. Needs click-man.

python -m headrace.pipeline.command.manual FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from click_man.core import write_man_pages

from headrace import __version__
from headrace.pipeline.command.cli import main as command_line


def main() -> None:
    """Write headrace.1 and a page for each command."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    write_man_pages("headrace", command_line, version=__version__, target_dir=str(folder))


if __name__ == "__main__":
    main()
