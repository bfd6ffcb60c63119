"""The store on a disk that keeps only what it must (see `power_loss`), when the power fails at any moment."""

from __future__ import annotations

from unittest import mock

import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from checkpoints.errors import StoreWriteError
from checkpoints.pod.engine import Settings, StoreEngine
from tests.support.sizes import proving, size
from tests.unit.checkpoints.power_loss import Disk, PowerFailure

ABSENT = None

KEYS = st.integers(0, 15)
VALUES = st.integers(0, 999)


class Crashes(RuleBasedStateMachine):
    """A store on that disk. `possible` says, for each key, what it may be after a crash."""

    @initialize(file_size=st.sampled_from([1, 2, 3]), gzipped=st.sampled_from([False, False, True]))
    def begin(self, file_size, gzipped):
        self.settings = Settings(file_size=file_size, gzipped=gzipped, sync_at=None, sync_interval=None)
        self.disk = Disk({})
        self.possible = {}
        self.open()

    def open(self):
        self.engine = StoreEngine(self.disk, self.settings, None)
        self.memory = self.engine.memory

    def state(self):
        return {key: [*self.memory.get(key)] for _, key in self.memory.after(-1, 100)}

    def note(self, key):
        now = [*self.memory.get(key)] if key in self.memory else ABSENT
        self.possible.setdefault(key, [ABSENT]).append(now)

    def synced(self, key):
        """A sync returned: it covers this key (None: all), and whatever is not dirty any more."""
        assert self.memory.dirty.isdisjoint(self.possible if key is None else {key})
        for clean in self.possible.keys() - self.memory.dirty:
            self.possible[clean] = self.possible[clean][-1:]

    @rule(key=KEYS, value=VALUES)
    def put(self, key, value):
        self.memory.put([(key, [value])])
        self.note(key)

    @rule(keys=st.lists(KEYS, min_size=2, max_size=16, unique=True), value=VALUES)
    def put_many(self, keys, value):
        self.memory.put([(key, [value]) for key in keys])
        for key in keys:
            self.note(key)

    @rule(key=KEYS, value=VALUES)
    def change_in_place(self, key, value):
        if key in self.memory:
            self.memory.get(key).append(value)
            self.possible[key].append([*self.memory.get(key)])

    @rule(keys=st.lists(KEYS, min_size=1, max_size=8, unique=True))
    def remove(self, keys):
        for key in keys:
            if key in self.memory:
                self.memory.remove(key)
                self.note(key)

    @rule(key=KEYS, value=VALUES)
    def remove_and_add_again(self, key, value):
        """The key is in another place afterwards."""
        if key in self.memory:
            self.memory.remove(key)
            self.note(key)
            self.put(key, value)

    @rule(keys=st.sets(KEYS, max_size=6))
    def keep_only(self, keys):
        """Leaves so many holes that the keys move up."""
        self.remove([key for key in self.state() if key not in keys])

    @rule()
    def sync(self):
        self.engine.sync()
        self.synced(None)

    @rule(key=KEYS)
    def sync_key(self, key):
        if key in self.memory:
            self.engine.sync([key])
            self.synced(key)

    @rule()
    def open_again(self):
        self.sync()
        before = self.state()
        self.open()
        assert self.state() == before

    @rule(after=st.integers(0, 25))
    def sync_on_a_disk_that_refuses(self, after):
        self.disk.fail(OSError(28, "No space left on device"), after)
        try:
            self.engine.sync()
        except StoreWriteError:
            event("a refused sync")
        else:
            self.synced(None)
        finally:
            self.disk.left = None

    @rule(data=st.data(), kept=st.sets(KEYS, max_size=5), after=st.integers(3, 16), value=VALUES)
    def crash_while_keys_move_up(self, data, kept, after, value):
        self.put_many(list(range(16)), value)
        self.sync()
        self.keep_only(kept)
        self.crash(data, after, "everything")

    @rule(
        data=st.data(),
        many=st.integers(1, 16),
        kept=st.sets(KEYS, max_size=16),
        refused_after=st.integers(0, 60),
        after=st.integers(0, 60),
        value=VALUES,
    )
    def crash_after_a_refusal(self, data, many, kept, refused_after, after, value):
        """A refused call leaves the disk partly unknown; the next commit must be safe nevertheless."""
        self.put_many(list(range(many)), value)
        self.sync_on_a_disk_that_refuses(refused_after)
        self.keep_only(kept)
        self.crash(data, after, "everything")

    @rule(data=st.data(), after=st.integers(0, 25), what=st.sampled_from(["everything", "a key", "nothing"]))
    def crash(self, data, after, what):
        """In the midst of a sync, after one, or without one."""
        self.disk.fail(PowerFailure(), after)
        try:
            if what == "everything":
                self.engine.sync()
                self.synced(None)
            elif what == "a key" and len(self.memory):
                key = data.draw(st.sampled_from(sorted(self.state())))
                self.engine.sync([key])
                self.synced(key)
        except PowerFailure:
            event("a crash within a sync")
        event("a crash")
        self.disk = self.disk.crash(data.draw)
        self.open()
        found = self.state()
        for key in {*found, *self.possible}:
            assert found.get(key, ABSENT) in self.possible.get(key, [ABSENT])
        self.possible = {key: [found.get(key, ABSENT)] for key in {*found, *self.possible}}

    @invariant()
    def what_may_be_lost_is_dirty(self):
        if hasattr(self, "memory"):
            unsure = {key for key, values in self.possible.items() if values[0] != values[-1]}
            assert unsure <= self.memory.dirty


@pytest.mark.timeout(1800)
def test_after_any_crash_the_store_opens_and_nothing_that_was_synced_is_missing():
    with mock.patch("checkpoints.pod.engine.run_blocking", lambda call, *args: call(*args)):
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
