"""ParallelWriter: its threads are kept, and each call returns or raises, also in a forked child."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.program import programs_after, run_python

PATCH = "from gevent import monkey; monkey.patch_all()"
HEAD = """
import asyncio, io, os, threading
import gevent
from gevent.monkey import get_original
from pillows import ParallelWriter
from pillows.standalone.parallel_writer import ParallelError
"""

Run = Callable[[str, str], None]

BOTH = pytest.mark.parametrize("mode", ["patched", "ordinary"])


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Run a script after `HEAD`, in a patched program or an ordinary one."""
    with programs_after(HEAD) as ordinary:

        def run(mode: str, script: str) -> None:
            if mode == "patched":
                run_python("-c", PATCH + HEAD + script)
            else:
                ordinary.run(script)

        yield run


@pytest.mark.parametrize(
    ("more", "threads"),
    [("", 2), ("max_parallel=2", 2), ("max_parallel=1", 0), ("timeout_seconds=60", 3)],
)
def test_e3_three_files_take_few_threads_however_many_calls(run: Run, more: str, threads: int) -> None:
    """Without a timeout the caller makes the last call itself."""
    script = f"""
seen = []
class File(io.BytesIO):
    def write(self, data):
        seen.append(threading.current_thread())
        return super().write(data)

files = [File() for _ in range(3)]
with ParallelWriter(files, {more}) as writer:
    for number in range(500):
        writer.write(b"%d" % number)
    assert [file.getvalue() for file in files] == [b"".join(b"%d" % n for n in range(500))] * 3
assert len(seen) == 1500
others = set(seen) - {{threading.current_thread()}}
assert len(others) == {threads}, len(others)
for thread in others:
    thread.join(10)
    assert not thread.is_alive()
"""
    run("ordinary", script)


@BOTH
def test_e3_lines_of_files_on_a_disk_are_read_without_threads_and_greenlets(run: Run, mode: str) -> None:
    script = """
def refuse(*_):
    raise AssertionError("a call of its own for a line")

writer = ParallelWriter([io.BytesIO(b"a\\n" * 20_000) for _ in range(3)])
writer._call_all._call_all = refuse
assert sum(line == b"a\\n" for line in writer) == 20_000
"""
    run(mode, script)


@BOTH
def test_e1_whatever_a_file_raises_reaches_the_caller(run: Run, mode: str) -> None:
    script = """
class File(io.BytesIO):
    def write(self, data):
        raise self.error

for error in (gevent.Timeout(5), gevent.GreenletExit(), asyncio.CancelledError(), SystemExit(3)):
    file, other = File(), io.BytesIO()
    file.error = error
    try:
        ParallelWriter([file, other]).write(b"x")
    except ParallelError as raised:
        assert type(raised.errors[0]) is RuntimeError and repr(error) in str(raised), raised
        assert raised.results == {1: 1}
    else:
        raise AssertionError(error)
file.error = KeyboardInterrupt()
try:
    ParallelWriter([file, other]).write(b"x")
except KeyboardInterrupt:
    pass
else:
    raise AssertionError
"""
    run(mode, script)


@BOTH
def test_e1_a_forked_child_may_write_too(run: Run, mode: str) -> None:
    script = """
files = [io.BytesIO() for _ in range(3)]
writer = ParallelWriter(files)
writer.write(b"parent")
child = os.fork()
if not child:
    code = 1
    try:
        assert writer.write(b", child") == 7
        writer.close()
        code = 0
    finally:
        os._exit(code)
assert get_original("os", "waitpid")(child, 0)[1] == 0  # gevent's may miss the end of a child
assert writer.write(b"!") == 1
assert [file.getvalue() for file in files] == [b"parent!"] * 3
"""
    run(mode, script)
