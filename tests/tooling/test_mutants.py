"""The mutants of `make mutants`: each differs, keeps its name, and changes nothing but behaviour."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

from tests.mutants.__main__ import SURVIVORS
from tests.mutants.modules import MODULES, ROOT, find_tests
from tests.mutants.operators import make_mutants

SOURCE = '''
"""A docstring."""
from typing import Protocol

LIMIT = 7

def decide(a: int, b: "1" = 2) -> bool:
    """Another one: 1 < 2."""
    if not a:
        raise ValueError(f"{1 + 1}")
    while a and b:
        a -= 1
        if a in (b, 3):
            break
    call(a, b)
    return a < b
'''


def names(source: str) -> list[str]:
    return [mutant.name for mutant in make_mutants(source)]


def test_each_kind_of_change_is_made_once_at_each_place() -> None:
    assert names(SOURCE) == [
        "<module>: 7 -> 8",
        "decide: 2 -> 3",
        "decide: not a -> a",
        "decide: raise ValueError(f'{1 + 1}') -> pass",
        "decide: a and b -> not (a and b)",
        "decide: a and b -> a or b",
        "decide: a -= 1 -> a += 1",
        "decide: 1 -> 2",
        "decide: a in (b, 3) -> a not in (b, 3)",
        "decide: 3 -> 4",
        "decide: break -> continue",
        "decide: call(a, b) -> pass",
        "decide: call(a, b) -> call(b, a)",
        "decide: return a < b -> return None",
        "decide: a < b -> a <= b",
    ]


def test_every_mutant_compiles_and_differs_from_all_others() -> None:
    trees = [ast.unparse(mutant.tree) for mutant in make_mutants(SOURCE)]
    assert len(set(trees) | {ast.unparse(ast.parse(SOURCE))}) == len(trees) + 1
    for mutant in make_mutants(SOURCE):
        compile(mutant.tree, "mutant", "exec")


def test_the_same_change_twice_in_one_function_has_two_names() -> None:
    assert names("def f(a):\n    a(1)\n    a(1)") == [
        "f: a(1) -> pass",
        "f: 1 -> 2",
        "f: a(1) -> pass #2",
        "f: 1 -> 2 #2",
    ]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_that_decides_is_there_and_has_tests(module: str) -> None:
    assert (ROOT / module).is_file()
    assert find_tests(module)


def test_an_explained_survivor_is_a_mutant_of_today() -> None:
    for module, reasons in tomllib.loads(Path(SURVIVORS).read_text()).items():
        assert set(reasons) <= set(names((ROOT / module).read_text())), module
        assert all(reasons.values())
