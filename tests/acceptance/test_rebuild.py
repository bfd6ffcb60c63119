"""A pillow is rebuilt beside its live rows, switched, switched back, and the other build dropped."""

from __future__ import annotations

import psycopg
import requests

from tests.acceptance import rebuilt
from tests.acceptance.world import World, live


def test_new_rows_are_built_beside_the_live_ones_switched_to_and_back_and_dropped(world: World) -> None:
    daemon = rebuilt.start(world)
    begun = daemon.ask_here("rebuild", "cases", "--switch", "manual", "--workers", "1")
    assert (begun["state"], begun["live"], begun["other"]) == ("building", 1, 2)
    assert begun["workers"] == 1
    rebuilt.wait(daemon, "ready")
    assert {each["pillow"] for each in daemon.ask_here("status")["pillows"]} == {"cases", "cases~2"}
    assert rebuilt.differences(world, is_next=False) == {}
    world.fill(5, start=30)
    daemon.command_here("rebuild", "switch", "cases")
    rebuilt.wait(daemon, "switched")
    daemon.wait_for(lambda: rebuilt.differences(world, is_next=True) == {})
    assert daemon.status("cases")["rebuild"]["live"] == 2
    daemon.wait_for(lambda: live(daemon))
    assert daemon.status("cases")["changes"] == 35, "no document is read again"
    world.fill(5, start=35)
    world.couch.delete(next(iter(world.couch.documents())))
    daemon.wait_for(lambda: rebuilt.differences(world, is_next=True) == {})
    daemon.wait_for(lambda: live(daemon))
    assert daemon.command_here("rebuild", "rollback", "cases").returncode == 0
    rebuilt.wait(daemon, "rolled-back")
    daemon.wait_for(lambda: rebuilt.differences(world, is_next=False) == {})
    daemon.wait_for(lambda: live(daemon))
    daemon.command_here("rebuild", "switch", "cases")
    rebuilt.wait(daemon, "switched")
    assert daemon.command("verify", "cases", "--content").returncode == 0
    assert daemon.command_here("rebuild", "drop", "cases").returncode == 0
    rebuilt.wait(daemon, "dropped")
    daemon.wait_for(lambda: rebuilt.differences(world, is_next=True) == {})
    assert [each["pillow"] for each in daemon.ask_here("status")["pillows"]] == ["cases"]
    with psycopg.connect(world.postgres_dsn) as connection:
        tables = connection.execute(
            "select tablename from pg_tables where tablename like 'cases%'"
        ).fetchall()
    assert tables == [("cases",)]
    indices = requests.get(
        f"{world.elasticsearch_url}/_cat/indices/{world.alias('cases')}*?h=index", timeout=60
    )
    assert len(indices.text.split()) == 1
    assert daemon.stop() == 0
