"""The lines that count as code when the packages are measured."""

from __future__ import annotations

import pytest

from bench.size import Size, measure, measure_package


@pytest.mark.parametrize(
    ("source", "size"),
    [
        ("", Size(files=1)),
        ('"""A docstring\n\nof three lines."""\n\n# a comment\nx = 1  # and code\n', Size(files=1, lines=1)),
        ('x = """\ntext\n"""\n', Size(files=1, lines=3)),
        (
            'class A:\n    """It."""\n\n    x = 0\n    """Its x."""\n\n    def f(self):\n        return x\n',
            Size(files=1, lines=4, classes=1, functions=1),
        ),
        ("async def f():\n    def g(): ...\n", Size(files=1, lines=2, functions=2)),
    ],
)
def test_blank_lines_comments_and_docstrings_are_no_code(source: str, size: Size) -> None:
    assert measure(source) == size


def test_a_package_has_code() -> None:
    found = measure_package("checkpoints")
    assert min(found.files, found.lines, found.classes, found.functions) > 10
