"""The JSON lines transport against a real file system, read back as its readers would."""

from __future__ import annotations

import errno
import gzip
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
import msgspec
import pytest
from pydantic import ValidationError

from checkpoints import TailKey
from pillows.errors import AccessError, ConfigError, FatalError, RetryableError, StateLostError
from pillows.models import WriteResult, write_version
from pillows.transports.jsonl.options import JsonlConnection, JsonlOutput
from pillows.transports.jsonl.transport import JsonlTransport
from tests.conformance.append_only import Appended, AppendOnlyConformance, AppendOnlyTarget, without_ids
from tests.conformance.steps import assert_applied
from tests.conformance.target import KEY, at, batch, document, gone

ROOT = Path(__file__).parents[3]
MANIFEST = "cases@couch_cases.manifest"


def transport(folder: Path, key: Any = KEY, **outputs: Any) -> Any:
    outputs = outputs or {"docs": JsonlOutput(file="docs.jsonl")}
    return JsonlTransport("files", key, JsonlConnection(folder=str(folder)), outputs)


@contextmanager
def running(folder: Path, **outputs: JsonlOutput) -> Iterator[Any]:
    one = transport(folder, **outputs)
    try:
        one.state = one.open()
        one.acquire(one.state.checkpoint or at("0"))
        yield one
    finally:
        one.close()


def read(path: Path) -> list[dict[str, Any]]:
    opened: Any = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rb") as file:
        content = file.read()
    assert not content or content.endswith(b"\n")
    return [msgspec.json.decode(line) for line in content.split(b"\n")[:-1]]


def ids(path: Path) -> list[str]:
    return [line["_id"] for line in read(path)]


class JsonlTarget(AppendOnlyTarget):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def transport(self, *outputs: str, key: TailKey = KEY) -> JsonlTransport:
        files = {output: JsonlOutput(file=f"{output}.jsonl") for output in outputs}
        return JsonlTransport("files", key, JsonlConnection(folder=self.folder), files)

    def read(self, output: str) -> list[Appended]:
        found: list[Appended] = []
        for line in read(self.folder / f"{output}.jsonl"):
            rows = [] if "_deleted" in line else [without_ids(line["doc"])]
            if line.get("_row", 0):
                rows = [*found.pop().rows, *rows]
            found.append(Appended(id=line["_id"], rev=line["_rev"], version=line["_version"], rows=rows))
        return found


class TestJsonlConformance(AppendOnlyConformance):
    @pytest.fixture
    def target(self, tmp_path: Path) -> JsonlTarget:
        return JsonlTarget(tmp_path)


def test_a_line_for_each_row_and_each_delete(tmp_path: Path) -> None:
    awkward = "a/+\n\u2028'\""
    with running(tmp_path) as jsonl:
        raw = document(awkward, 2, b'{"_id": "x",\n  "text": "a\\nb"}', rev="2-b")
        assert_applied(jsonl.write(batch(raw, document("m", 1, {"n": 1}, rev="1-a"), gone("d", 3), epoch=2)))
    assert read(tmp_path / "docs.jsonl") == [
        {
            "output": "docs",
            "_id": awkward,
            "_rev": "2-b",
            "_version": write_version(2, 2),
            "doc": {"_id": "x", "text": "a\nb"},
        },
        {"output": "docs", "_id": "m", "_rev": "1-a", "_version": write_version(2, 1), "doc": {"n": 1}},
        {
            "output": "docs",
            "_id": "d",
            "_rev": gone("d", 3).rev,
            "_version": write_version(2, 3),
            "_deleted": True,
        },
    ]


def test_rows_are_numbered_where_there_are_several(tmp_path: Path) -> None:
    with running(tmp_path) as jsonl:
        jsonl.write(batch(document("a", 1, {"n": 1}, {"n": 2})))
    lines = read(tmp_path / "docs.jsonl")
    assert [(line["_row"], line["_rows"], line["doc"]["n"]) for line in lines] == [(0, 2, 1), (1, 2, 2)]


def test_each_output_tells_its_part(tmp_path: Path) -> None:
    outputs = {"docs": JsonlOutput(file="docs.jsonl"), "other": JsonlOutput(file="other.jsonl")}
    with running(tmp_path, **outputs) as jsonl:
        jsonl.write(batch(document("a", 1, {"n": 1}), first_pass=True))
        jsonl.write(batch(document("a", 2, {"n": 2}, output="other", elsewhere=[{"n": 3}])))
    assert [line.get("_deleted", False) for line in read(tmp_path / "docs.jsonl")] == [False, True]
    assert [line.get("doc") for line in read(tmp_path / "other.jsonl")] == [None, {"n": 2}]


def test_a_delete_within_the_first_pass_is_written(tmp_path: Path) -> None:
    """Nothing tells whether the document was there: it may have been, earlier in the same pass."""
    with running(tmp_path) as jsonl:
        jsonl.write(batch(document("a", 1, {"n": 1}), first_pass=True))
        jsonl.write(batch(gone("a", 2), first_pass=True))
    assert [line.get("_deleted", False) for line in read(tmp_path / "docs.jsonl")] == [False, True]


def test_a_row_without_a_json_form_is_dead_and_the_others_are_written(tmp_path: Path) -> None:
    with running(tmp_path) as jsonl:
        jsonl.write(batch(checkpoint=at("1-x")))
        bad = [document("bad", 1, {"n": object()}), document("torn", 1, b'{\n"n": ')]
        result = jsonl.write(batch(*bad, document("b", 1, {"n": 1}), checkpoint=at("2-x")))
    assert set(result.dead) == {"bad", "torn"}
    assert all("JSON" in reason for reason in result.dead.values())
    assert ids(tmp_path / "docs.jsonl") == ["b"]
    with running(tmp_path) as jsonl:
        assert jsonl.state.checkpoint == at("1-x"), "no checkpoint past a document in trouble"


def test_the_standing_survives_reopening(tmp_path: Path) -> None:
    with running(tmp_path) as jsonl:
        assert (jsonl.state.epoch, jsonl.state.empty, jsonl.state.checkpoint) == (None, True, None)
        jsonl.acquire(at("0", epoch=3))
        assert_applied(jsonl.write(batch(document("a", 1, {"n": 1}), checkpoint=at("7-x", epoch=3))))
    with running(tmp_path) as jsonl:
        assert (jsonl.state.epoch, jsonl.state.empty) == (3, False)
        assert jsonl.state.checkpoint == at("7-x", epoch=3)
        jsonl.acquire(at("0", epoch=2, edits=1))
    with running(tmp_path) as jsonl:
        assert jsonl.state.epoch == 3, "an epoch is never lowered"
        assert jsonl.state.checkpoint == at("0", epoch=2, edits=1)


@pytest.mark.parametrize("torn", [b'{"output":"docs","_id', b'{"_id":"unacked"}\n', b"\0" * 5000])
@pytest.mark.parametrize("zipped", [False, True])
def test_what_was_never_acknowledged_is_cut_off(tmp_path: Path, torn: bytes, zipped: bool) -> None:
    docs = JsonlOutput(file="docs.jsonl", gzip=zipped)
    path = tmp_path / ("docs.jsonl.gz" if zipped else "docs.jsonl")
    with running(tmp_path, docs=docs) as jsonl:
        jsonl.write(batch(document("a", 1, {"n": 1})))
    with path.open("ab") as file:
        file.write(torn)
    with running(tmp_path, docs=docs) as jsonl:
        assert ids(path) == ["a"]
        jsonl.write(batch(document("b", 1, {"n": 1})))
    assert ids(path) == ["a", "b"]


@pytest.mark.parametrize("zipped", [False, True])
def test_segments_are_finished_whole_and_their_names_sort(tmp_path: Path, zipped: bool) -> None:
    docs = JsonlOutput(file="docs.jsonl", segment_size="2KiB", gzip=zipped)
    with running(tmp_path, docs=docs) as jsonl:
        for n in range(30):
            text = os.urandom(200).hex() if zipped else "x" * 400
            jsonl.write(batch(document(f"d{n:02}", 1, {"text": text})))
    end = ".jsonl.gz" if zipped else ".jsonl"
    names = sorted(path.name for path in tmp_path.glob("docs*"))
    finished, parts = [n for n in names if n.endswith(end)], [n for n in names if n.endswith(".part")]
    assert finished[0] == f"docs.000001{end}"
    assert len(finished) > 3
    assert len(parts) == 1
    assert all((tmp_path / name).stat().st_size >= 2048 for name in finished)
    assert [id for name in finished for id in ids(tmp_path / name)] == [
        f"d{n:02}" for n in range(sum(len(read(tmp_path / name)) for name in finished))
    ]
    with running(tmp_path, docs=docs) as jsonl:
        assert not jsonl.state.empty
        jsonl.write(
            batch(document("more", 1, {"text": "x" * 4096 if not zipped else os.urandom(3000).hex()}))
        )
    assert "more" in ids(tmp_path / sorted(p.name for p in tmp_path.glob(f"docs*{end}"))[-1])


#: The end of a temporary file's name.
TEMPORARY = ".new"


def failing(name: str, when: str, error: int) -> Any:
    """`os.name` that fails for paths or descriptors of files that end so."""
    real = getattr(os, name)

    def call(subject: Any, *more: Any, **named: Any) -> Any:
        path = os.readlink(f"/proc/self/fd/{subject}") if isinstance(subject, int) else str(subject)
        if path.endswith(when):
            raise OSError(error, os.strerror(error), path)
        return real(subject, *more, **named)

    return call


def test_a_crash_before_a_full_segment_is_renamed_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = JsonlOutput(file="docs.jsonl", segment_size="100B")
    with running(tmp_path, docs=docs) as jsonl, monkeypatch.context() as patch:
        patch.setattr(os, "rename", failing("rename", ".part", errno.EIO))
        assert_applied(jsonl.write(batch(document("a", 1, {"text": "x" * 200}), checkpoint=at("1-x"))))
        with pytest.raises(RetryableError, match="Input/output error"):
            jsonl.write(batch(document("b", 1, {"n": 1})))
    assert not (tmp_path / "docs.000001.jsonl").exists()
    with running(tmp_path, docs=docs) as jsonl:
        assert jsonl.state.checkpoint == at("1-x"), "it counts: the manifest says so"
        jsonl.write(batch(document("b", 1, {"n": 1})))
    assert ids(tmp_path / "docs.000001.jsonl") == ["a"]
    assert ids(tmp_path / "docs.000002.jsonl") == ["b"]


@pytest.mark.parametrize(
    ("call", "file"),
    [("pwrite", "other.jsonl"), ("fsync", "other.jsonl"), ("rename", TEMPORARY), ("fsync", TEMPORARY)],
)
def test_a_full_disk_at_any_step_is_retryable_and_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, file: str
) -> None:
    outputs = {"docs": JsonlOutput(file="docs.jsonl"), "other": JsonlOutput(file="other.jsonl")}
    second = batch(document("b", 1, {"n": 1}, other=[{"n": 2}]), checkpoint=at("2-x"))
    with running(tmp_path, **outputs) as jsonl:
        jsonl.write(batch(document("a", 1, {"n": 1}, other=[{"n": 1}]), checkpoint=at("1-x")))
        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing(call, file, errno.ENOSPC))
            for _ in range(2):
                with pytest.raises(RetryableError, match="No space left"):
                    jsonl.write(second)
        assert_applied(jsonl.write(batch()))
        assert ids(tmp_path / "other.jsonl") == ["a"], "the lines of the failed write are gone"
        assert_applied(jsonl.write(batch(document("c", 1, {"n": 1}))))
        assert_applied(jsonl.write(second))
    assert ids(tmp_path / "docs.jsonl") == ["a", "c", "b"]
    assert ids(tmp_path / "other.jsonl") == ["a", "c", "b"]


def test_another_process_waits_until_the_files_are_free(tmp_path: Path) -> None:
    with running(tmp_path):
        second = transport(tmp_path)
        with pytest.raises(RetryableError, match="Another process writes the files"):
            second.open()
    second.open()
    second.close()


def test_a_file_of_somebody_else_is_refused_and_not_cut(tmp_path: Path) -> None:
    (tmp_path / "docs.jsonl").write_text("somebody's\n")
    with pytest.raises(ConfigError, match="was not written by cases@couch/cases"), running(tmp_path):
        pass
    (tmp_path / "docs.jsonl").unlink()
    with running(tmp_path) as jsonl:
        jsonl.write(batch(document("a", 1, {"n": 1})))
    (tmp_path / "other.jsonl").write_text("somebody's\n")
    outputs = {"docs": JsonlOutput(file="docs.jsonl"), "other": JsonlOutput(file="other.jsonl")}
    with pytest.raises(ConfigError, match="choose another file"), running(tmp_path, **outputs):
        pass
    assert (tmp_path / "other.jsonl").read_text() == "somebody's\n"


def test_an_output_that_comes_back_goes_on_where_it_ended(tmp_path: Path) -> None:
    outputs = {"docs": JsonlOutput(file="docs.jsonl"), "other": JsonlOutput(file="other.jsonl")}
    with running(tmp_path, **outputs) as jsonl:
        jsonl.write(batch(document("a", 1, {"n": 1}, other=[{"n": 1}])))
    with running(tmp_path, docs=outputs["docs"]) as jsonl:
        jsonl.write(batch(document("b", 1, {"n": 1})))
    with running(tmp_path, **outputs) as jsonl:
        jsonl.write(batch(document("c", 1, {"n": 1}, other=[{"n": 1}])))
    assert ids(tmp_path / "other.jsonl") == ["a", "c"]


@pytest.mark.parametrize("how", ["deleted", "replaced", "shortened"])
def test_a_file_that_changes_under_the_writer_is_noticed(tmp_path: Path, how: str) -> None:
    path = tmp_path / "docs.jsonl"
    with running(tmp_path) as jsonl:
        jsonl.write(batch(document("a", 1, {"n": 1})))
        if how == "shortened":
            os.truncate(path, 5)
        else:
            path.unlink()
        if how == "replaced":
            path.write_bytes(b"x" * 1000)
        with pytest.raises(StateLostError, match="checkpoint reset"):
            jsonl.write(batch(document("b", 1, {"n": 1})))


def test_acknowledged_lines_that_are_gone_are_noticed_at_the_start(tmp_path: Path) -> None:
    with running(tmp_path) as jsonl:
        jsonl.write(batch(document("a", 1, {"n": 1})))
    (tmp_path / "docs.jsonl").unlink()
    with pytest.raises(StateLostError, match="holds 0 bytes, but"), running(tmp_path):
        pass


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"{", StateLostError, "cannot be read"),
        (b"{}", StateLostError, "cannot be read"),
        (b'{"format": 9, "new": 1}', FatalError, "has format 9; this pillowd knows 1"),
        (b'{"format": 1, "pillow": "cases"}', StateLostError, "cannot be read"),
    ],
)
def test_an_unreadable_manifest_is_refused(
    tmp_path: Path, content: bytes, error: type[Exception], message: str
) -> None:
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(error, match=message), running(tmp_path):
        pass


def test_a_missing_folder_is_an_access_error(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="create the folder"), running(tmp_path / "missing"):
        pass


@pytest.mark.parametrize("file", ["", "a/b.jsonl", "../x"])
def test_a_file_is_a_name_in_the_folder(file: str) -> None:
    with pytest.raises(ValidationError):
        JsonlOutput(file=file)


def test_two_outputs_cannot_share_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name the same file"):
        transport(tmp_path, docs=JsonlOutput(file="x.jsonl"), other=JsonlOutput(file="x.jsonl"))


def test_the_digest_tells_the_files_and_their_kinds(tmp_path: Path) -> None:
    kinds = [
        JsonlOutput(file="a"),
        JsonlOutput(file="b"),
        JsonlOutput(file="a", gzip=True),
        JsonlOutput(file="a", segment_size="1MiB"),
    ]
    assert len({transport(tmp_path, docs=kind).outputs_digest() for kind in kinds}) == len(kinds)
    larger = JsonlOutput(file="a", segment_size="2MiB")
    assert (
        transport(tmp_path, docs=larger).outputs_digest()
        == transport(tmp_path, docs=kinds[3]).outputs_digest()
    )


def test_no_file_is_left_open_after_close(tmp_path: Path) -> None:
    def ours() -> list[str]:
        links = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
        return [link for link in links if link.startswith(str(tmp_path))]

    with running(tmp_path) as jsonl:
        jsonl.write(batch(document("a", 1, {"n": 1})))
        assert len(ours()) == 2
    jsonl.close()
    assert ours() == []


def test_a_kill_in_mid_write_leaves_whole_batches_and_the_next_write_works(tmp_path: Path) -> None:
    with running(tmp_path) as jsonl:
        for n in range(10):
            documents = [document(f"{n}-{m}", 1, {"n": m}) for m in range(500)]
            writer = gevent.spawn(jsonl.write, batch(*documents))
            gevent.sleep(n / 2000)
            writer.kill(timeout=60)
        assert jsonl.write(batch(document("last", 1, {"n": 1}))) == WriteResult()
    found = ids(tmp_path / "docs.jsonl")
    assert found[-1] == "last"
    assert len(found) % 500 == 1


@pytest.mark.parametrize("zipped", [False, True])
def test_after_a_kill_the_files_hold_exactly_the_acknowledged_lines(tmp_path: Path, zipped: bool) -> None:
    """A process that is killed with -9 at some moment of its writes; the files are opened anew."""
    writer = Path(__file__).with_name("endless_writer.py")
    path = tmp_path / ("docs.jsonl.gz" if zipped else "docs.jsonl")
    for wait_seconds in (0.02, 0.06, 0.11, 0.17):
        process = subprocess.Popen(
            [sys.executable, writer, "jsonl.gz" if zipped else "jsonl", tmp_path],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(wait_seconds)
        process.kill()
        process.communicate()
        one = transport(tmp_path, docs=JsonlOutput(file="docs.jsonl", gzip=zipped))
        checkpoint = one.open().checkpoint
        one.close()
        assert checkpoint is not None
        assert [line["doc"]["batch"] for line in read(path)] == [
            number for number in range(1, checkpoint.changes + 1) for _ in range(100)
        ]


def test_the_longest_names_that_a_pillow_and_a_database_may_have_fit_into_a_manifests(tmp_path: Path) -> None:
    """Linux allows names of 255 bytes. Two long names that differ at their ends have two manifests."""
    keys = [TailKey("n" * 63, f"couch/{'d' * 237}{end}") for end in "ab"]
    for key in keys:
        one = transport(tmp_path, key, docs=JsonlOutput(file=f"{key.source[-1]}.jsonl"))
        one.open()
        one.acquire(at("1-a"))
        one.close()
        assert (
            transport(tmp_path, key, docs=JsonlOutput(file=f"{key.source[-1]}.jsonl")).open().epoch
            is not None
        )
    assert len(list(tmp_path.glob("*.manifest"))) == 2
