"""A pillow with a next definition, into three targets, and what tests ask of its rebuild."""

from __future__ import annotations

import json
from typing import Any

import yaml

from tests.acceptance import stores
from tests.acceptance.process import Pillowd
from tests.acceptance.world import TARGETS, World, live

#: What the next definition adds to each row.
NEXT = {"build": "next"}


def configure(world: World, *targets: str, **more: Any) -> Pillowd:
    """A daemon with the pillow `cases`; the definition under its `next` key adds a field."""
    pillow = world.pillow("cases", *targets, **{"next": {"transform": {"set": NEXT}}, **more})
    return world.pillowd({"cases": pillow})


def start(world: World, *targets: str, documents: int = 30, **more: Any) -> Pillowd:
    """The same daemon, running and up to date."""
    world.fill(documents)
    daemon = configure(world, *targets, **more)
    daemon.start()
    daemon.wait_for(lambda: live(daemon), seconds=max(60, documents / 200))
    return daemon


def wait(daemon: Pillowd, state: str, *, seconds: float = 120.0) -> dict[str, Any]:
    """Waits for a state of the rebuild of `cases`."""
    found: dict[str, Any] = {}

    def reached() -> bool:
        done = daemon.command_here("rebuild", "status", "cases", "--json")
        if done.returncode != 0:
            return False  # it has not begun
        found.update(json.loads(done.stdout))
        return found["state"] == state and not found["wanted"]

    daemon.wait_for(reached, seconds=seconds)
    return found


def rewrite(daemon: Pillowd, **keys: Any) -> None:
    """Changes keys of the pillow in its file; None removes one."""
    settings = yaml.safe_load(daemon.config.read_text())
    pillow = settings["pillows"]["cases"]
    pillow.update(keys)
    for name, value in keys.items():
        if value is None:
            del pillow[name]
    daemon.config.write_text(yaml.safe_dump(settings))


def differences(world: World, *targets: str, is_next: bool) -> dict[str, list[str]]:
    """Where the live rows are not those of the one definition or of the other."""
    expected = {
        id: row._replace(body={**row.body, **(NEXT if is_next else {})})
        for id, row in stores.couchdb(world.couch).items()
    }
    found = {
        target: stores.differences(expected, world.read(target, "cases")) for target in targets or TARGETS
    }
    return {target: wrong for target, wrong in found.items() if wrong}
