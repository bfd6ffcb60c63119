"""Every command that a message prints: in the code of the packages, and in README's table of remedies."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from checkpoints import TailKey
from daemon.tail_lookup import name_tail

ROOT = Path(__file__).parents[2]


def list_remedies(key: TailKey) -> list[str]:
    """Return every command in backticks; where a value is filled in, and for `KEY`, it has the pillow's name.

    Args:
        key: of the pillow that a reason is about.
    """
    found: set[str] = set()
    for package in ("checkpoints", "pillows", "daemon"):
        for path in (ROOT / package).rglob("*.py"):
            if "`pillowd " not in (module := path.read_text()):  # to parse all modules takes seconds
                continue
            for text in list_texts(ast.parse(module), key.pillow):
                found |= set(re.findall(r"`(pillowd [^`]+)`", name_tail(text, key)))
    table = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| ")]
    commands = re.findall(r"`(pillowd [^`]+)`", "\n".join(table))
    found |= {each.replace("KEY", key.pillow) for each in commands}
    # `[^` is part of a pattern that looks for such a command.
    return sorted(each for each in found if "..." not in each and "[^" not in each)


def list_texts(tree: ast.AST, filled_in: str) -> Iterator[str]:
    """Yield every text of a module that can be printed, with `filled_in` for each value."""
    nodes = list(ast.walk(tree))
    docs = {id(each.value) for each in nodes if isinstance(each, ast.Expr)}
    inside = {id(part) for each in nodes if isinstance(each, ast.JoinedStr) for part in each.values}
    for each in nodes:
        if isinstance(each, ast.JoinedStr):
            yield "".join(str(p.value) if isinstance(p, ast.Constant) else filled_in for p in each.values)
        elif isinstance(each, ast.Constant) and isinstance(each.value, str) and id(each) not in docs | inside:
            yield each.value
