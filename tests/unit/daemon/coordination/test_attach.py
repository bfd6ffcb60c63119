"""Which state counts when a state directory becomes a cache of a service's state."""

from __future__ import annotations

from pathlib import Path

import pytest

from checkpoints import IntegrityError
from checkpoints.replica import Replica
from daemon.coordination.attach import attach_stores, read_service, refuse_copy
from pillows.errors import StateLostError
from tests.support.dict_replica import DictReplica


class Shared:
    """The state of the service `reports`."""

    service = "reports"

    def __init__(self, *, is_filled: bool) -> None:
        self.is_filled = is_filled
        self.opened: list[str] = []

    def open_replica(self, store: str) -> Replica:
        self.opened.append(store)
        return DictReplica({} if self.is_filled else None)

    def set_filled(self) -> None:
        self.is_filled = True


class Store:
    """Notes that it was attached."""

    def __init__(self) -> None:
        self.replica: Replica | None = None

    def attach(self, replica: Replica) -> None:
        self.replica = replica


def attach(folder: Path, shared: Shared, *, is_empty: bool) -> Store:
    store = Store()
    attach_stores(folder, shared, {"checkpoints": store}, is_empty=is_empty)
    assert store.replica is not None
    return store


@pytest.mark.parametrize("is_empty", [False, True])
def test_the_first_daemon_of_a_service_puts_its_state_there(tmp_path: Path, is_empty: bool) -> None:
    shared = Shared(is_filled=False)
    attach(tmp_path, shared, is_empty=is_empty)
    assert shared.is_filled
    assert read_service(tmp_path) == "reports"


def test_an_empty_directory_and_a_copy_take_the_state_of_the_service(tmp_path: Path) -> None:
    attach(tmp_path, Shared(is_filled=True), is_empty=True)
    attach(tmp_path, Shared(is_filled=True), is_empty=False)
    assert read_service(tmp_path) == "reports"


def test_a_state_of_its_own_is_never_replaced(tmp_path: Path) -> None:
    with pytest.raises(StateLostError, match=r"a state of its own.*move .* away"):
        attach(tmp_path, Shared(is_filled=True), is_empty=False)
    (tmp_path / "service.json").write_text('{"format": 1, "service": "other"}')
    with pytest.raises(StateLostError):
        attach(tmp_path, Shared(is_filled=True), is_empty=False)
    assert read_service(tmp_path) == "other"


def test_a_copy_never_becomes_the_state_by_itself(tmp_path: Path) -> None:
    """The lease database was lost; another machine may have gone on since."""
    attach(tmp_path, Shared(is_filled=False), is_empty=True)
    with pytest.raises(StateLostError, match=r"the lease database has no state.*remove .*service\.json"):
        attach(tmp_path, Shared(is_filled=False), is_empty=False)
    with pytest.raises(StateLostError, match=r"is a copy of the state of the service reports"):
        refuse_copy(tmp_path)
    (tmp_path / "service.json").unlink()
    refuse_copy(tmp_path)


def test_a_failure_on_the_way_leaves_a_state_that_counts(tmp_path: Path) -> None:
    class Failing(Store):
        def attach(self, replica: Replica) -> None:
            raise OSError("disk full")

    shared = Shared(is_filled=False)
    with pytest.raises(OSError, match="disk full"):
        attach_stores(tmp_path, shared, {"checkpoints": Failing()}, is_empty=False)
    assert not shared.is_filled
    assert read_service(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"[]", b'{"format": 1}', b'{"format": 2, "service": "a"}', b"\xff"])
def test_a_name_that_is_not_understood_is_refused(tmp_path, content):
    (tmp_path / "service.json").write_bytes(content)
    with pytest.raises(IntegrityError, match=r"service\.json .* Remedy: "):
        read_service(tmp_path)
