"""The files of earlier versions on the disks of users can still be read, and mean the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from daemon.config.load import load
from tests.golden.made import (
    CHECKPOINTS,
    DEAD_LETTERS,
    DIGESTS,
    KEY,
    MIRROR,
    MIRRORS,
    PAUSED,
    STATE,
    STATUS,
    make_digests,
    make_statuses,
    opened_state,
    write_mirror,
    write_state,
)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return a copy of the state directory, to write to."""
    return Path(shutil.copytree(STATE, tmp_path / "state"))


def test_a_state_directory_is_read_with_all_that_is_in_it(state: Path) -> None:
    with opened_state(state) as opened:
        assert {key: opened.store.get(key) for key in opened.store.keys()} == CHECKPOINTS  # noqa: SIM118
        found = {each.id: each for each in opened.dead_letters.list(KEY)}
        for expected in DEAD_LETTERS:
            stored = found.pop(expected.id)
            names = ("tail", "transport", "rev", "leaf_version", "seq", "stage", "error")
            assert [getattr(stored, name) for name in names] == [getattr(expected, name) for name in names]
            assert stored.tries == 1
        assert found == {}
        assert (PAUSED in opened.pauses, KEY in opened.pauses) == (True, False)


def test_a_state_directory_goes_on_where_it_was(state: Path) -> None:
    with opened_state(state) as opened:
        edited = opened.store.edit(KEY, lambda stored: stored or CHECKPOINTS[KEY])
        assert edited.edits == CHECKPOINTS[KEY].edits + 1
        opened.pauses.discard(PAUSED)
    with opened_state(state) as opened:
        assert opened.store.get(KEY) == edited
        assert opened.dead_letters.count(KEY) == len(DEAD_LETTERS)
        assert PAUSED not in opened.pauses


def test_a_state_directory_is_written_as_it_was(tmp_path: Path) -> None:
    """An older pillowd of the same format can read it, too."""
    write_state(tmp_path)
    assert _contents(tmp_path) == _contents(STATE)


def test_digests_of_a_configuration_stay_the_same(tmp_path: Path) -> None:
    """Another digest of the same configuration stops the start of every pillow that has such a transport."""
    assert make_digests(tmp_path) == json.loads(DIGESTS.read_text())


def test_status_has_the_names_that_monitoring_reads() -> None:
    assert make_statuses() == json.loads(STATUS.read_text())


def test_a_mirror_s_configuration_loads_and_is_written_as_it_was(tmp_path: Path) -> None:
    config = load(MIRROR / "pillowd.yaml", {"COUCHDB_PASSWORD": "s3cret"})
    (transport,) = config.pillows["org_cases"].transport
    assert transport.outputs["org_cases"].model_dump()["columns"] == {"n": "n integer", "doc": "@ jsonb"}
    folder = write_mirror(tmp_path)
    written = (folder / "pillowd.yaml").read_text().replace(str(tmp_path), str(MIRRORS))
    assert written == (MIRROR / "pillowd.yaml").read_text()


def _contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
