from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from checkpoints import Checkpoint, Seq, TailKey
from daemon import state_dir
from pillows.clock import SystemClock

KEY = TailKey("cases", "couch/cases")


def test_what_was_paused_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    with state_dir.open_state_dir(tmp_path / "state", SystemClock()) as state:
        state.pauses.add(KEY)
    with state_dir.open_state_dir(tmp_path / "state", SystemClock()) as again:
        assert KEY in again.pauses
        assert again.store.keys() == []


@pytest.mark.parametrize("umask", [0, 0o022, 0o027, 0o077], ids=oct)
def test_d5_others_may_read_nothing_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "state"
    before = os.umask(umask)
    try:
        with state_dir.open_state_dir(path, SystemClock()) as state:
            state.pauses.add(KEY)
            state.store.save(KEY, Checkpoint(seq=Seq("1")))
    finally:
        os.umask(before)
    files = [file for file in path.rglob("*") if file.is_file()]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} <= {0o600, 0o640}
    folders = [path, *(folder for folder in path.rglob("*") if folder.is_dir())]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} <= {0o700, 0o750}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as somebody else")
def test_d5_root_takes_no_group_of_its_own_along(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.mkdir()
    os.chown(path, 12345, 23456)
    groups = os.getgroups()
    os.setgroups([0, 4])
    try:
        with state_dir.run_as_owner(path):
            assert (os.geteuid(), os.getegid(), os.getgroups()) == (12345, 23456, [23456])
        assert (os.geteuid(), os.getegid(), os.getgroups()) == (0, 0, [0, 4])
    finally:
        os.setgroups(groups)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as somebody else")
def test_root_leaves_files_that_the_service_s_user_can_read(tmp_path: Path) -> None:
    """An edit by root must not lock out the daemon, which runs as a user of its own."""
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o011)
    os.chown(path, 12345, 12345)
    with state_dir.run_as_owner(path), state_dir.open_state_dir(path, SystemClock()) as state:
        state.pauses.add(KEY)
        assert os.geteuid() == 12345

    assert os.geteuid() == 0
    assert {file.stat().st_uid for file in path.rglob("*")} == {12345}


def test_a_directory_of_our_own_needs_no_change_of_user(tmp_path: Path) -> None:
    with state_dir.run_as_owner(tmp_path), state_dir.run_as_owner(tmp_path / "missing"):
        assert os.geteuid() == os.getuid()
