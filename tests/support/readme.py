"""The README's text, and the commands and configurations it shows."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
#: The indented blocks, in order.
BLOCKS: list[str] = re.findall(r"(?m)(?:^    .*\n)+", README)


def find_block(start: str) -> str:
    """Return the one indented block that begins with this text, without its indentation."""
    (found,) = [block for block in BLOCKS if block.strip().startswith(start)]
    return re.sub(r"(?m)^    ", "", found)
