"""What `python -m tests` makes of a test that fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.__main__ import PARTS, TESTS_FAILED

STEADY = "def test_good(): pass\ndef test_bad(): assert False, 'as ever'\n"
UNSTEADY = """
from pathlib import Path
import pytest

@pytest.mark.parametrize("n", range({count}))
def test_now_and_then(n):
    been = Path(__file__).with_name(f"been-{{n}}")
    first = not been.exists()
    been.touch()
    assert not first, "the first time"
"""


def run(
    folder: Path, *parts: str, no_second_look: str = "none", limit_seconds: float = 300.0
) -> tuple[int, str]:
    """Runs folders as the parts; returns the exit code and what was printed."""
    program = (
        "import sys; from tests import __main__ as runner;"
        f"runner.PARTS = {parts!r}; runner.NO_SECOND_LOOK = {no_second_look!r};"
        f"runner.LIMIT_SECONDS = {limit_seconds}; runner.LAST_WORDS = (runner.signal.SIGKILL,);"
        "sys.exit(runner.main([]))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={"PYTHONPATH": str(root), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    for name, text in {
        "steady": STEADY,
        "two": UNSTEADY.format(count=2),
        "many": UNSTEADY.format(count=3),
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / f"test_{name}.py").write_text(text)
    return tmp_path


def test_what_passes_the_second_time_is_named_and_fails_nothing(parts: Path) -> None:
    code, said = run(parts, "two")
    assert code == 0, said
    assert "UNSTEADY, passed when it was run again: two/test_two.py::test_now_and_then[0]" in said
    assert "the first time" in said


def test_what_fails_twice_fails(parts: Path) -> None:
    code, said = run(parts, "steady", "two")
    assert (code, "UNSTEADY" in said) == (1, False), "three failures are too many to be chance"
    code, said = run(parts, "steady")
    assert code == 1
    assert "FAILED twice: steady/test_steady.py::test_bad" in said
    assert said.count("as ever") >= 2


def test_many_failures_get_no_second_look_and_neither_does_what_the_chaos_harness_finds(parts: Path) -> None:
    assert run(parts, "many")[0] == 1
    assert run(parts, "two", no_second_look="two")[0] == 1


def test_a_part_that_cannot_run_fails(parts: Path) -> None:
    code, said = run(parts, "nowhere")
    assert code == 1
    assert "FAILED with" in said
    assert f"FAILED with {TESTS_FAILED}\n" not in said


def test_a_part_may_be_some_files_of_a_folder_and_waits_for_its_turn(parts: Path) -> None:
    for name in ("calm_a", "calm_b", "calm_c", "calm_d"):
        (parts / f"test_{name}.py").write_text("def test_calm(): pass")
    patterns = ["test_calm_[a-b]*.py", "test_calm_c*.py", "test_calm_d*.py"]
    code, said = run(parts, *patterns, "test_calm_a.py")
    assert code == 0, said
    assert [said.count(f"{pattern}: passed") for pattern in patterns] == [2, 2, 2]
    assert "2 passed" in said


def test_what_there_was_no_time_for_has_not_passed(parts: Path) -> None:
    code, said = run(parts, "steady", "two", "many", "steady", limit_seconds=0.0)
    assert code == 1
    assert "steady: NOT RUN to its end" in said


def test_every_test_is_in_one_part() -> None:
    root = Path(__file__).parents[2]
    tests = {path.relative_to(root) for path in (root / "tests").rglob("test_*.py")}
    found = [path for part in PARTS for path in tests if path.match(part) or Path(part) in path.parents]
    assert sorted(found) == sorted(tests)
