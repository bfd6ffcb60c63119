"""Stores to test, here and shared."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from gevent import monkey

from checkpoints import POD, SharedPOD, SharedTracker, Tracker
from checkpoints.files.directory import Directory
from checkpoints.pod.commit import Commit


@pytest.fixture
def closing():
    """Closes what a test opens."""
    with ExitStack() as stack:
        yield stack.enter_context


@pytest.fixture(params=[POD, SharedPOD])
def pod(request, tmp_path, closing):
    """A store as its user sees it: in this process, and through the socket."""
    return closing(request.param(tmp_path / "x.pod"))


@pytest.fixture(params=[Tracker, SharedTracker])
def tracker(request, tmp_path, closing):
    """A tracker as its user sees it: in this process, and through the socket."""
    return closing(request.param(tmp_path / "x.tracker"))


@pytest.fixture
def slow_disk(monkeypatch):
    """Makes every fsync take so many seconds more, in its thread."""
    sleep = monkey.get_original("time", "sleep")  # the patched one would give way to other greenlets
    fsync = Directory._fsync

    def slow(seconds):
        monkeypatch.setattr(Directory, "_fsync", lambda self, fd: (sleep(seconds), fsync(self, fd)))

    return slow


@pytest.fixture
def commits(monkeypatch):
    """The commits of PODs and trackers since the test began."""
    made = []
    execute = Commit.execute
    monkeypatch.setattr(Commit, "execute", lambda *args: (made.append(args[0]), execute(*args)))
    return made
