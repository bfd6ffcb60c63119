"""The journal on a disk that keeps no more than it must (`power_loss`), pulled out at any moment."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from checkpoints.errors import StoreWriteError
from checkpoints.files.directory import Directory
from checkpoints.journal import journal
from checkpoints.journal.journal import Journal
from checkpoints.journal.records import decode_value
from tests.support.sizes import proving, size
from tests.unit.checkpoints.power_loss import Disk, PowerFailure

KEYS = st.sampled_from([("k", str(number)) for number in range(6)])
VALUES = st.integers(0, 10**6)


class Crashes(RuleBasedStateMachine):
    """`possible` says, for each key, which values it may have after a crash: the synced one first."""

    @initialize(compact_bytes=st.sampled_from([0, 200, 1024 * 1024]))
    def begin(self, compact_bytes):
        journal.COMPACT_BYTES = compact_bytes
        self.disk = Disk({})
        self.possible = {}
        self.open()

    def open(self):
        with mock.patch.object(Directory, "open_locked", return_value=self.disk):
            self.journal = Journal(Path("/disk"))

    def value(self, key):
        entry = self.journal.get(key)
        return None if entry is None else decode_value(entry)

    def note(self, *keys):
        for key in keys:
            self.possible.setdefault(key, [None]).append(self.value(key))

    def synced(self):
        self.possible = {key: values[-1:] for key, values in self.possible.items()}

    @rule(values=st.dictionaries(KEYS, VALUES, min_size=1, max_size=4))
    def put(self, values):
        self.journal.put(values)
        self.note(*values)

    @rule()
    def sync(self):
        self.journal.sync()
        self.synced()

    @rule(key=KEYS, value=VALUES, after=st.integers(0, 12))
    def edit_on_a_disk_that_refuses(self, key, value, after):
        """An edit that could not be written is taken back, as the checkpoint store does."""
        before = {key: self.journal.get(key)}
        self.put({key: value})
        self.disk.fail(OSError(28, "No space left on device"), after)
        try:
            self.journal.sync()
        except StoreWriteError:
            event("a refused edit")
            self.journal.restore(before)
            self.note(key)
        else:
            self.synced()
        finally:
            self.disk.left = None

    @rule(after=st.integers(0, 12))
    def sync_on_a_disk_that_refuses(self, after):
        self.disk.fail(OSError(5, "Input/output error"), after)
        try:
            self.journal.sync()
        except StoreWriteError:
            event("a refused sync")
        else:
            self.synced()
        finally:
            self.disk.left = None

    @rule()
    def close_and_open(self):
        self.journal.close()
        self.synced()
        before = dict(self.journal._entries)
        self.open()
        assert self.journal._entries == before

    @rule(data=st.data(), after=st.integers(0, 15), how=st.sampled_from(["sync", "close", "nothing"]))
    def crash(self, data, after, how):
        self.disk.fail(PowerFailure(), after)
        try:
            if how != "nothing":
                getattr(self.journal, how)()
                self.synced()
        except PowerFailure:
            event(f"a crash within a {how}")
        self.disk = self.disk.crash(data.draw)
        self.open()
        assert not self.journal.damaged
        for key, values in self.possible.items():
            assert self.value(key) in values
        self.possible = {key: [self.value(key)] for key in self.possible}

    @rule(data=st.data(), values=st.dictionaries(KEYS, VALUES, min_size=1), after=st.integers(0, 4))
    def crash_within_a_commit(self, data, values, after):
        self.put(values)
        self.crash(data, after, "sync")


@pytest.mark.timeout(1800)
def test_after_any_crash_the_journal_opens_whole_and_nothing_that_was_synced_is_missing(monkeypatch):
    monkeypatch.setattr(journal, "COMPACT_BYTES", journal.COMPACT_BYTES)  # put back afterwards
    monkeypatch.setattr(journal, "run_blocking", lambda call, *args: call(*args))
    run_state_machine_as_test(
        Crashes,
        settings=settings(
            max_examples=size(ci=80, proof=5000),
            stateful_step_count=20,
            deadline=None,
            derandomize=not proving(),
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
