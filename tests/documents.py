"""The blocks of documents, for tests that run what a reader would."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

from tests.harness import ROOT


class Block(NamedTuple):
    """A fenced block: its language, and its text. Commands say in a comment on their first line where they are run."""

    language: str
    text: str

    @property
    def place(self) -> str:
        first = self.text.splitlines()[0]
        return first.removeprefix("# ") if first.startswith("# ") else ""


def blocks(document: str) -> list[Block]:
    """Return the fenced blocks of a file of docs/, in their order."""
    text = (ROOT / "docs" / document).read_text()
    return [Block(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]


def typed(folder: Path, script: str) -> list[str]:
    """Return the command that does what a reader does who types it in a folder, the project's environment activated."""
    path = f"PATH={Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
    return ["env", path, f"PYTHONPATH={ROOT}", "bash", "-euo", "pipefail", "-c", f"cd {folder}\n{script}"]
