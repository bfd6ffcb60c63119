"""A build is refused where another output is: its name is made up, and nobody has claimed it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from checkpoints import CheckpointStore
from daemon.config.load import load
from daemon.rebuilds.builds import Builds
from pillows.errors import ConfigError
from pillows.options import Build
from tests.unit.daemon.rebuilds.tail_states import KEY

SECOND = Build(number=2, live=False)


def make(folder: Path, **outputs: dict[str, Any]) -> Builds:
    """The builds of a configuration with one pillow for each output."""
    text = {
        "version": 1,
        "connections": {
            "couch": {"type": "couchdb", "url": "http://127.0.0.1:5984"},
            "lite": {"type": "sqlite", "path": "target.db"},
            "files": {"type": "jsonl", "folder": str(folder)},
            "pg": {"type": "postgres", "dsn": "postgresql://127.0.0.1:1/none"},
        },
        "pillows": {
            name: {"source": {"connection": "couch", "database": "cases"}, "transport": [output]}
            for name, output in outputs.items()
        },
    }
    (folder / "pillowd.yaml").write_text(yaml.safe_dump(text))
    config = load(folder / "pillowd.yaml")
    with CheckpointStore(folder / "store") as store:
        return Builds(lambda: config, store)


@pytest.mark.parametrize("connection", ["lite", "pg"])
def test_a_table_of_another_pillow_is_no_place_for_a_build(tmp_path: Path, connection: str) -> None:
    builds = make(
        tmp_path,
        cases={"connection": connection, "table": "cases"},
        others={"connection": connection, "table": "cases__2"},
    )
    (cases,) = builds.find_definitions(KEY)
    with pytest.raises(ConfigError, match=r"build 2 of its output 'cases' .* output 'others' of others"):
        builds.refuse_obstacles(KEY, cases, SECOND, copies=False)


def test_a_table_of_that_name_elsewhere_is_not_in_the_way(tmp_path: Path) -> None:
    builds = make(
        tmp_path,
        cases={"connection": "lite", "table": "cases"},
        others={"connection": "pg", "table": "cases__2"},
    )
    (cases,) = builds.find_definitions(KEY)
    with pytest.raises(ConfigError, match="let the pillow run first"):
        builds.refuse_obstacles(KEY, cases, SECOND, copies=False)


def test_a_target_without_builds_is_named_and_not_its_own_place(tmp_path: Path) -> None:
    builds = make(tmp_path, cases={"connection": "files", "file": "cases.jsonl"})
    (cases,) = builds.find_definitions(KEY)
    with pytest.raises(ConfigError, match="it only ever receives more"):
        builds.refuse_obstacles(KEY, cases, SECOND, copies=False)
