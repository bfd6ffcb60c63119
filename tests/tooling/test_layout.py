"""The tests are laid out like the code, and no test module is a library for others."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ELSEWHERE = tomllib.loads(Path(__file__).with_name("tested_elsewhere.toml").read_text())
TEST_MODULES = sorted((ROOT / "tests").rglob("test_*.py"))
#: Such as t13 or p11. The numbers A1 to I9 are no plan's: they say which fault of the field a test holds off.
CODE_OF_A_PLAN = re.compile(r"test_(?![a-i]\d\d?_)(?:[a-z]{1,2}\d+_)+")
#: Rooms whose test names hold no codes of a plan.
NAMED_BY_BEHAVIOUR = (
    "unit",
    "acceptance",
    "integration",
    "chaos",
    "tooling",
    "conformance",
    "demo",
    "golden",
)


def modules_without_own_test() -> list[str]:
    modules = [
        path.relative_to(ROOT)
        for package in ("checkpoints", "pillows", "daemon")
        for path in sorted((ROOT / package).rglob("*.py"))
        if not path.stem.startswith("__")
    ]
    return [
        str(module)
        for module in modules
        if not (ROOT / "tests" / "unit" / module.parent / f"test_{module.stem}.py").exists()
    ]


def is_declaration(module: str) -> bool:
    return any(fnmatch(module, pattern) for pattern in ELSEWHERE["declarations"])


@pytest.mark.parametrize("module", [each for each in modules_without_own_test() if not is_declaration(each)])
def test_a_module_has_a_unit_test_of_its_name_or_a_reason(module: str) -> None:
    where = [path for pattern, path in ELSEWHERE["tested_by"].items() if fnmatch(module, pattern)]
    assert where, f"write tests/unit/{Path(module).parent}/test_{Path(module).name}, or say who tests it"
    assert (ROOT / where[0]).exists()


def test_every_reason_is_needed() -> None:
    modules = modules_without_own_test()
    patterns = [*ELSEWHERE["declarations"], *ELSEWHERE["tested_by"]]
    assert [each for each in patterns if not any(fnmatch(module, each) for module in modules)] == []


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


@pytest.mark.parametrize(
    "room", [room.name for room in sorted((ROOT / "tests").iterdir()) if any(room.rglob("test_*.py"))]
)
def test_no_test_module_imports_another(room: str) -> None:
    wrong = {
        str(path.relative_to(ROOT)): name
        for path in (ROOT / "tests" / room).rglob("test_*.py")
        for name in imports(path)
        if name.startswith("tests.") and name.rpartition(".")[2].startswith("test_")
    }
    assert wrong == {}


@pytest.mark.parametrize("room", NAMED_BY_BEHAVIOUR)
def test_names_of_tests_hold_no_codes(room: str) -> None:
    texts = {path: path.read_text() for path in (ROOT / "tests" / room).rglob("*.py")}
    wrong = [name for text in texts.values() for name in re.findall(r"def (test_\w+)", text)]
    assert [name for name in wrong if CODE_OF_A_PLAN.match(name)] == []


@pytest.mark.parametrize(
    "floor",
    [
        str(folder.relative_to(ROOT))
        for package in ("checkpoints", "pillows", "daemon")
        for folder in [ROOT / package, *sorted((ROOT / package).rglob("*/"))]
        if (folder / "__init__.py").exists()
    ],
)
def test_a_folder_has_about_fifteen_modules_at_most(floor: str) -> None:
    modules = [path.name for path in (ROOT / floor).glob("*.py") if not path.stem.startswith("__")]
    assert len(modules) <= 15, f"divide {floor} by concern: {modules}"
