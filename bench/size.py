"""How large the packages are: files, lines of code, classes and functions.

Usage: python -m bench.size [REVISION ...]

Without a revision it counts the working tree. Blank lines, comments and docstrings do not count.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
PACKAGES = ("checkpoints", "pillows", "daemon")
_NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


@dataclass(frozen=True, slots=True)
class Size:
    """The size of some files.

    Attributes:
        files, lines, classes, functions: how many there are; a method is a function.
    """

    files: int = 0
    lines: int = 0
    classes: int = 0
    functions: int = 0

    def __add__(self, other: Size) -> Size:
        """Return the size of both."""
        return Size(
            files=self.files + other.files,
            lines=self.lines + other.lines,
            classes=self.classes + other.classes,
            functions=self.functions + other.functions,
        )


def measure(source: str) -> Size:
    """Return the size of one file."""
    tree = ast.parse(source)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    classes = functions = 0
    for node in ast.walk(tree):
        classes += isinstance(node, ast.ClassDef)
        functions += isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if isinstance(node, ast.Expr) and _is_text(node.value):  # a docstring
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return Size(files=1, lines=len(lines), classes=classes, functions=functions)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def measure_package(package: str, revision: str | None = None) -> Size:
    """Return the size of a package, in the working tree or at a revision."""
    return sum((measure(source) for source in _read_sources(package, revision)), Size())


def _read_sources(package: str, revision: str | None) -> list[str]:
    if revision is None:
        return [path.read_text() for path in sorted((ROOT / package).rglob("*.py"))]
    listed = _git("ls-tree", "-r", "--name-only", revision, f"{package}/").splitlines()
    return [_git("show", f"{revision}:{name}") for name in listed if name.endswith(".py")]


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main(revisions: Sequence[str | None]) -> None:
    """Print a table of the packages, one for each revision; None is the working tree."""
    for revision in revisions:
        table = Table("package", title=revision or "working tree")
        for name in ("files", "lines", "classes", "functions"):
            table.add_column(name, justify="right")
        sizes = {package: measure_package(package, revision) for package in PACKAGES}
        for name, size in (sizes | {"all": sum(sizes.values(), Size())}).items():
            table.add_row(name, *(f"{n:,}" for n in (size.files, size.lines, size.classes, size.functions)))
        Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1:] or [None])
