"""Stores to test, here and shared."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from checkpoints import POD, SharedPOD, SharedTracker, Tracker


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
