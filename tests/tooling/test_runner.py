"""What `python -m tests` makes of tests that fail, of workers that break, and of the time it has."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runner.proof import PARTS, find_paths
from tests.runner.rooms import is_run_again
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]

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
CALM = "import os\ndef test_calm(): open('workers', 'a').write(f'{os.getpid()}\\n')\n"


def run(folder: Path, *parts: str, limit_seconds: float = 300.0) -> tuple[int, str]:
    """Run folders; return the exit code and what was printed."""
    program = (
        "import sys; from tests import __main__ as runner; from tests.runner import worker;"
        f"runner.LIMIT_SECONDS = {limit_seconds}; worker.LAST_WORDS = (worker.signal.SIGKILL,);"
        "sys.exit(runner.main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *parts],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {
        "steady": STEADY,
        "two": UNSTEADY.format(count=2),
        "many": UNSTEADY.format(count=3),
        "chaos": UNSTEADY.format(count=1),
        "broken": "import nothing_of_this_name",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / f"test_{name}.py").write_text(text)
    (tmp_path / "calm").mkdir()
    for name in "abcd":
        (tmp_path / "calm" / f"test_{name}.py").write_text(CALM)
    return tmp_path


def test_a_test_that_passes_the_second_time_is_named_and_recorded(folder: Path) -> None:
    code, said = run(folder, "two")
    assert code == 0, said
    assert "UNSTEADY, passed when it was run again: two/test_two.py::test_now_and_then[0]" in said
    assert "the first time" in said
    recorded = json.loads((folder / "build" / "unsteady.json").read_bytes())
    assert [each["test"] for each in recorded] == [f"two/test_two.py::test_now_and_then[{n}]" for n in (0, 1)]
    assert all("the first time" in each["text"] for each in recorded)


def test_a_test_that_fails_twice_fails_the_run(folder: Path) -> None:
    code, said = run(folder, "steady")
    assert code == 1
    assert "FAILED twice: steady/test_steady.py::test_bad" in said
    assert said.count("as ever") >= 2


def test_more_than_two_failures_are_not_run_again(folder: Path) -> None:
    code, said = run(folder, "many")
    assert (code, "Once more" in said) == (1, False)
    code, said = run(folder, "steady", "two")
    assert (code, "Once more" in said) == (1, False)


def test_a_test_of_what_must_not_be_lost_fails_the_run_though_it_would_pass_again(folder: Path) -> None:
    code, said = run(folder, "chaos")
    assert (code, "Once more" in said) == (1, False)
    assert not (folder / "build" / "unsteady.json").exists()


@pytest.mark.parametrize(
    ("name", "again"),
    [
        ("tests/chaos/test_chaos.py::test_x", False),
        ("tests/acceptance/test_crash_points.py::test_x", False),
        ("tests/acceptance/test_lost_state.py::test_x", False),
        ("tests/integration/transports/test_jsonl.py::TestJsonlConformance::test_x", False),
        ("tests/unit/pillows/feed/test_couch_feed.py::test_x", True),
    ],
)
def test_proofs_of_durability_are_never_run_again(name: str, again: bool) -> None:
    assert is_run_again(name) is again


def test_a_worker_that_cannot_collect_fails_the_run_and_is_shown(folder: Path) -> None:
    code, said = run(folder, "broken")
    assert code == 1
    assert "nothing_of_this_name" in said


def test_each_test_is_run_once_however_many_workers_there_are(folder: Path) -> None:
    code, said = run(folder, "calm")
    assert code == 0, said
    assert "4 tests, 0 failed" in said
    assert len((folder / "workers").read_text().splitlines()) == 4
    assert "The slowest 4:" in said


def test_a_run_that_has_no_time_left_has_not_passed(folder: Path) -> None:
    code, said = run(folder, "calm", limit_seconds=0.0)
    assert code == 1
    assert "Not over after 0 s" in said


def test_every_test_is_in_one_part_of_the_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part has folders and files, or single tests of a file, which are then all that the file has."""
    monkeypatch.chdir(ROOT)
    paths = [path for part in PARTS for path in find_paths(part)]
    whole = [Path(path) for path in paths if "::" not in path]
    single = {path for path in paths if "::" in path}
    assert len(paths) == len({*whole, *single})
    for test in Path("tests").rglob("test_*.py"):
        holders = [path for path in whole if path in {test, *test.parents}]
        named = {path for path in single if path.startswith(f"{test}::")}
        if named:
            assert holders == []
            assert named == {f"{test}::{name}" for name in proof_tests(test)}
        else:
            assert len(holders) == 1, (test, holders)


def proof_tests(file: Path) -> list[str]:
    """The functions of a file that a proof runs: all tests but those that run for long."""
    functions = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)]
    marks = {each.name: [ast.unparse(mark) for mark in each.decorator_list] for each in functions}
    return [name for name in marks if name.startswith("test_") and "pytest.mark.soak" not in marks[name]]


PROVE = """
import sys
from pathlib import Path
from tests.runner import proof
proof.PARTS = {name: (name,) for name in ("two", "killed")}
proof.SAVE_SECONDS = 0.1
proof.read_commit = lambda: "abc"
sys.exit(proof.main())
"""


def test_a_proof_goes_on_where_it_was_and_is_written_down(folder: Path) -> None:
    """Two tests fail the first time; the run after that runs them alone, and the one after that none."""
    results = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", PROVE, "two"],
            cwd=folder,
            env={"PYTHONPATH": str(ROOT), "PATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        result = json.loads((folder / "build" / "proof" / "two.json").read_bytes())
        outcomes = [test["outcome"] for test in result["tests"].values()]
        results.append((done.returncode, result["commit"], result["passed"], outcomes))
    assert results == [
        (1, "abc", False, ["failed", "failed"]),
        (0, "abc", True, ["passed", "passed"]),
        (0, "abc", True, ["passed", "passed"]),
    ], done.stdout + done.stderr


KILLED = """
import os, signal, time
from pathlib import Path

def test_before(): open("runs", "a").write("before\\n")

def test_meanwhile():
    open("runs", "a").write(f"meanwhile {os.getpid()}\\n")
    if Path("hang").exists():
        time.sleep(600)

def test_after(): open("runs", "a").write("after\\n")
"""


def test_a_proof_that_is_killed_goes_on_after_what_has_passed(folder: Path) -> None:
    """The tests die with it; the one that was running is run again, and the one before it is not."""
    (folder / "killed").mkdir()
    (folder / "killed" / "test_killed.py").write_text(KILLED)
    (folder / "hang").touch()
    runs, written = folder / "runs", folder / "build" / "proof" / "killed.json"
    command = [sys.executable, "-c", PROVE, "killed"]
    environ = {"PYTHONPATH": str(ROOT), "PATH": ""}

    with subprocess.Popen(
        command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as proof:
        wait_until(lambda: runs.exists() and "meanwhile" in runs.read_text())
        wait_until(lambda: written.exists() and "test_before" in written.read_text())
        proof.kill()
    tester = int(runs.read_text().split()[-1])
    wait_until(lambda: not Path(f"/proc/{tester}").exists())
    assert json.loads(written.read_bytes())["passed"] is False

    (folder / "hang").unlink()
    again = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    assert [line.split()[0] for line in runs.read_text().splitlines()] == [
        "before",
        "meanwhile",
        "meanwhile",
        "after",
    ]
    result = json.loads(written.read_bytes())
    assert (result["passed"], len(result["tests"])) == (True, 3)
