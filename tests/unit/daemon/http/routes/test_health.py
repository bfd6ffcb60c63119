"""What the process says of its greenlets and its memory."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest
from gevent.event import Event

from checkpoints import TailKey
from daemon.supervision.stacks import mark_family
from tests.unit.daemon.http.conftest import Served

KEY = TailKey("stuck", "couch/cases")


@pytest.fixture
def stuck() -> Iterator[None]:
    """A tail whose child waits without end, with a document in a variable."""
    never = Event()

    def wait_in_vain() -> None:
        document = {"name": "Kowalski"}
        never.wait()
        del document

    def run() -> None:
        gevent.spawn(wait_in_vain).join()

    root: gevent.Greenlet[..., None] = gevent.Greenlet(run)
    mark_family(root, KEY)
    root.start()
    gevent.sleep(0)
    gevent.sleep(0)
    yield
    never.set()
    root.join(5)


@pytest.mark.usefixtures("stuck")
def test_the_stacks_of_a_pillow_tell_where_it_waits_and_hold_no_document(served: Served) -> None:
    found = served.admin.get("/v1/debug/greenlets")
    assert found.status == 200
    ours = [each for each in found.json["greenlets"] if each["pillow"] == str(KEY)]
    assert [each["name"].rpartition(".")[2] for each in ours] == ["run", "wait_in_vain"]
    assert any("never.wait()" in line for line in ours[1]["stack"])
    assert found.json["count"] >= len(found.json["greenlets"]) > len(ours), "the daemon's own, too"
    assert "Kowalski" not in found.text


def test_the_memory_is_told_in_bytes_and_by_type(served: Served) -> None:
    found = served.admin.get("/v1/debug/memory").json
    assert found["peak_resident_bytes"] >= found["resident_bytes"] * 0.9 > 10 * 2**20
    assert found["tracked_objects"] > sum(each["count"] for each in found["most_objects"][:3]) > 0
    assert len(found["garbage_collections"]) == 3


def test_neither_is_told_at_the_door_for_everybody(served: Served) -> None:
    assert served.read.get("/v1/debug/greenlets").status == 404
    assert served.read.get("/v1/debug/memory").status == 404
