"""Which of the two definitions in the YAML each build has, in either order, and after changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from daemon.config.load import load
from daemon.config.models import Config, PillowConfig
from daemon.config_digests import pipeline_digest
from daemon.rebuilds.definitions import add_builds, list_definitions, list_live_next, with_builds
from daemon.rebuilds.record import Definition, Rebuild, Rebuilds, RebuildState, parse_key

FIRST: dict[str, Any] = {"set": {"build": "first"}}
SECOND: dict[str, Any] = {"set": {"build": "second"}}
THIRD: dict[str, Any] = {"set": {"build": "third"}}


@pytest.fixture
def configure(tmp_path: Path) -> Any:
    def make(transform: Any, following: Any = None, **more: Any) -> Config:
        pillow: dict[str, Any] = {
            "source": {"connection": "couch", "database": "cases"},
            "transform": transform,
            "transport": [{"connection": "lite", "table": "cases"}],
            **more,
        }
        if following is not None:
            pillow["next"] = {"transform": following}
        text = {
            "version": 1,
            "daemon": {"state_dir": str(tmp_path / "state")},
            "connections": {
                "couch": {"type": "couchdb", "url": "http://127.0.0.1:5984"},
                "lite": {"type": "sqlite", "path": "target.db"},
            },
            "pillows": {"cases": pillow},
        }
        path = tmp_path / "pillowd.yaml"
        path.write_text(yaml.safe_dump(text))
        return load(path)

    return make


def digest(configure: Any, transform: Any) -> Definition:
    return Definition(pipeline_digest(configure(transform).pillows["cases"]))


def find_builds(
    config: Config, rebuild: Rebuild, digest_code: Any = None
) -> dict[str, tuple[Any, int, bool, str]]:
    """Tail -> what it sets, its build, whether that is live, and its table."""
    found = {}
    for name, settings in add_builds(config, {"cases@couch/cases": rebuild}, digest_code).tails.items():
        output: Any = settings.transport[0].outputs["cases"]
        made = settings.steps[0].set["build"]
        found[name] = (made, output.build.number, output.build.live, output.table_name)
    return found


def record(configure: Any, of_live: Any, of_other: Any, **fields: Any) -> Rebuild:
    given: dict[str, Any] = {"state": RebuildState.BUILDING, "live": 1, "other": 2, "last": 2, **fields}
    given["live_definition"] = digest(configure, of_live)
    given["other_definition"] = digest(configure, of_other)
    return Rebuild(**given)


def test_before_the_switch_the_next_definition_is_built_beside(configure: Any) -> None:
    rebuild = record(configure, FIRST, SECOND)
    assert find_builds(configure(FIRST, SECOND), rebuild) == {
        "cases": ("first", 1, True, "cases"),
        "cases~2": ("second", 2, False, "cases__2"),
    }


def test_workers_fill_the_other_build_until_the_switch(configure: Any) -> None:
    config = configure(FIRST, SECOND)
    rebuild = record(configure, FIRST, SECOND, workers=3)
    built = add_builds(config, {"cases@couch/cases": rebuild}).tails
    assert {name: each.load.workers for name, each in built.items()} == {"cases": 0, "cases~2": 3}
    switched = record(configure, SECOND, FIRST, live=2, other=1, state=RebuildState.SWITCHED, workers=3)
    kept = add_builds(config, {"cases@couch/cases": switched}).tails
    assert {each.load.workers for each in kept.values()} == {0}


def test_after_the_switch_both_orders_mean_the_same(configure: Any) -> None:
    rebuild = record(configure, SECOND, FIRST, live=2, other=1, state=RebuildState.SWITCHED)
    expected = {"cases": ("second", 2, True, "cases"), "cases~1": ("first", 1, False, "cases__1")}
    assert find_builds(configure(FIRST, SECOND), rebuild) == expected
    assert find_builds(configure(SECOND, FIRST), rebuild) == expected


def test_without_its_definition_the_former_build_is_not_fed(configure: Any) -> None:
    rebuild = record(configure, SECOND, FIRST, live=2, other=1, state=RebuildState.SWITCHED)
    assert find_builds(configure(SECOND), rebuild) == {"cases": ("second", 2, True, "cases")}


def test_without_its_code_the_former_build_is_not_fed(configure: Any) -> None:
    rebuild = record(configure, SECOND, FIRST, live=2, other=1, state=RebuildState.SWITCHED)
    assert set(find_builds(configure(FIRST, SECOND), rebuild, lambda _: ["changed"])) == {"cases"}
    assert set(find_builds(configure(FIRST, SECOND), rebuild, lambda _: [])) == {"cases", "cases~1"}


def test_a_live_definition_that_was_changed_is_the_one_that_is_not_the_former(configure: Any) -> None:
    rebuild = record(configure, SECOND, FIRST, live=2, other=1, state=RebuildState.SWITCHED)
    assert find_builds(configure(FIRST, THIRD), rebuild)["cases"][0] == "third"
    assert find_builds(configure(THIRD, FIRST), rebuild)["cases"][0] == "third"
    assert find_builds(configure(THIRD), rebuild)["cases"][0] == "third"


def test_a_rebuild_by_the_same_definition_has_it_twice(configure: Any) -> None:
    rebuild = record(configure, FIRST, FIRST)
    assert {name: each[0] for name, each in find_builds(configure(FIRST), rebuild).items()} == {
        "cases": "first",
        "cases~2": "first",
    }


@pytest.mark.parametrize("state", [RebuildState.DROPPING, RebuildState.DROPPED])
def test_a_dropped_build_does_not_run(configure: Any, state: RebuildState) -> None:
    rebuild = record(configure, SECOND, FIRST, live=2, other=1, state=state)
    assert find_builds(configure(FIRST, SECOND), rebuild) == {"cases": ("second", 2, True, "cases")}


def test_the_digest_of_a_pipeline_is_that_of_any_build(configure: Any) -> None:
    config = add_builds(configure(FIRST), {"cases@couch/cases": record(configure, FIRST, FIRST)})
    assert len({pipeline_digest(each) for each in config.tails.values()}) == 1
    assert config.tails["cases"] != config.tails["cases~2"]


def test_the_records_are_read_from_the_state_directory(configure: Any, tmp_path: Path) -> None:
    config = configure(FIRST, SECOND)
    assert list(with_builds(config).tails) == ["cases"]
    (tmp_path / "state").mkdir()
    rebuilds = Rebuilds(tmp_path / "state" / "rebuilds.json")
    rebuilds.put(parse_key("cases@couch/cases"), record(configure, FIRST, SECOND))
    assert list(with_builds(config).tails) == ["cases", "cases~2"]
    assert list_live_next(config) == []
    switched = record(configure, SECOND, FIRST, live=2, other=1, state=RebuildState.SWITCHED)
    rebuilds.put(parse_key("cases@couch/cases"), switched)
    assert list_live_next(config) == ["cases"]


def test_each_transport_with_a_pace_of_its_own_is_rebuilt_by_itself(configure: Any) -> None:
    paced = [
        {"connection": "lite", "table": "cases"},
        {"connection": "lite", "name": "slow", "table": "slow", "own_pace": True},
    ]
    pillow: PillowConfig = configure(FIRST, SECOND, transport=paced).pillows["cases"]
    found = list_definitions(pillow, "cases.slow")
    assert [each.steps[0].set["build"] for each in found] == ["first", "second"]
    assert [entry.name for each in found for entry in each.transport] == ["slow", "slow"]
