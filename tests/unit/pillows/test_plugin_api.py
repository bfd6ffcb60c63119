"""A plugin needs nothing but what `pillows` exports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pillows

TOY = Path(__file__).parents[2] / "acceptance" / "toy" / "pillowd_toy.py"


@pytest.mark.parametrize("name", pillows.__all__)
def test_every_exported_name_is_there(name: str) -> None:
    assert getattr(pillows, name) is not None


def test_a_name_that_is_not_exported_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = pillows.no_such_name


def test_the_toy_transport_imports_nothing_else_of_ours() -> None:
    tree = ast.parse(TOY.read_text())
    found = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    found |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    ours = {name for name in found if name and name.split(".")[0] in {"pillows", "checkpoints", "daemon"}}
    assert ours == {"pillows"}


def test_a_plugin_loads_no_client_library() -> None:
    code = (
        "import sys; from pillows import Transport, Filter, Transform, register, Change, Options\n"
        "print(sorted({'requests', 'psycopg', 'elasticsearch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
