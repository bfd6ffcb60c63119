"""One bad pillow harms no other: the others reach `live` and stay current."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.acceptance.process import Pillowd
from tests.acceptance.world import TARGETS, World, live, statuses

PLUGINS = """
import gevent

def raising(document):
    raise ValueError("poison")

def exiting(document):
    raise SystemExit(3)

def waiting(document):
    gevent.sleep(3600)

def impossible(document):
    return {"t": object()}
"""

NOBODY = 9  # the discard port


def bad_pillows(world: World) -> Mapping[str, Any]:
    """Name -> settings; each goes wrong in its own way."""
    nowhere: dict[str, Any] = {
        "nowhere_es": {"type": "elasticsearch", "hosts": [f"http://127.0.0.1:{NOBODY}"]},
        "nowhere_pg": {"type": "postgres", "dsn": f"postgresql://nobody@127.0.0.1:{NOBODY}/x"},
        "nowhere_couch": {"type": "couchdb", "url": f"http://127.0.0.1:{NOBODY}"},
    }
    world.connections.update(nowhere)
    with psycopg.connect(world.postgres_dsn) as connection:
        connection.execute("create table taken (other int)")
    table = {"connection": "postgres"}
    return {
        "other_table": world.pillow("taken", "postgres"),
        "wrong_type": {
            **world.pillow("x"),
            "transport": [{**table, "table": "wrong", "columns": {"n": "n nonsense"}}],
        },
        "es_down": {**world.pillow("x"), "transport": [{"connection": "nowhere_es", "index": "x"}]},
        "pg_down": {**world.pillow("x"), "transport": [{"connection": "nowhere_pg", "table": "x"}]},
        "couch_down": world.pillow("a", "sqlite", source={"connection": "nowhere_couch"}),
        "poison": world.pillow("b", "sqlite", transform={"python": "plugins:raising"}),
        "poison_enough": world.pillow(
            "c", "sqlite", transform={"python": "plugins:raising"}, errors={"max_consecutive": 50}
        ),
        "impossible": world.pillow("d", "sqlite", transform={"python": "plugins:impossible"}),
        "exiting": world.pillow("e", "sqlite", transform={"python": "plugins:exiting"}),
        "waiting": world.pillow("f", "sqlite", transform={"python": "plugins:waiting"}),
    }


@pytest.fixture
def daemon(world: World) -> Pillowd:
    Path(world.folder / "plugins.py").write_text(PLUGINS)
    world.fill(300)
    bad = bad_pillows(world)
    good = {f"good_{target}": world.pillow(f"good_{target}", target) for target in TARGETS}
    return world.pillowd({**bad, **good}).start()


def test_bad_pillows_harm_no_other(world: World, daemon: Pillowd) -> None:
    """Targets that are down or do not fit; transforms that raise, exit, wait, or give what none can write."""
    good = [f"good_{target}" for target in TARGETS]
    daemon.wait_for(lambda: live(daemon, *good))
    expected = {
        "other_table": "failed",
        "wrong_type": "failed",
        "es_down": "backing-off",
        "pg_down": "backing-off",
        "couch_down": "backing-off",
        "poison": "live",
        "poison_enough": "failed",
        "impossible": "live",
        "exiting": "live",
    }
    daemon.wait_for(lambda: expected.items() <= _states(daemon).items())
    assert _said(daemon, "dead_letters", "poison", "impossible", "exiting") == [300] * 3

    for number in range(5):
        world.couch.put(f"later-{number}", n=number)
        for target in TARGETS:
            daemon.wait_for(partial(_holds, world, target, f"later-{number}"))
    assert live(daemon, *good)
    assert _said(daemon, "restarts", *good) == [0] * len(good)
    for target in TARGETS:
        assert world.differences(f"good_{target}", target) == {}
    assert daemon.child.poll() is None


def _holds(world: World, target: str, id: str) -> bool:
    return id in world.read(target, f"good_{target}")


def _states(daemon: Pillowd) -> dict[str, str]:
    return {name: said["state"] for name, said in statuses(daemon).items()}


def _said(daemon: Pillowd, what: str, *names: str) -> list[Any]:
    said = statuses(daemon)
    return [said[name][what] for name in names]
