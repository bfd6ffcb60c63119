"""A pillow whose load worker processes carry into PostgreSQL."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import psutil

from tests.acceptance.process import Pillowd
from tests.acceptance.world import World

FUNCTIONS = """
import os, time

def rows(doc):
    time.sleep({seconds})
    with open("{folder}/done-%d" % os.getppid(), "a") as done:
        done.write(doc["_id"] + "\\n")
    return doc

def signed(doc):
    time.sleep({seconds})
    return {{"daemon": os.getppid()}}
"""


def configure(world: World, *, workers: int = 2, seconds: float = 0.001, **more: Any) -> Pillowd:
    """A daemon whose pillow `cases` carries its load into PostgreSQL with workers."""
    functions = FUNCTIONS.format(seconds=seconds, folder=world.folder)
    (world.folder / "load_functions.py").write_text(functions)
    transform = {"python": "load_functions:rows"}
    pillow = world.pillow(
        "cases", "postgres", **{"load": {"workers": workers}, "transform": transform, **more}
    )
    return world.pillowd({"cases": pillow})


def workers_of(daemon: Pillowd) -> list[int]:
    with suppress(psutil.Error):
        return [each.pid for each in psutil.Process(daemon.child.pid).children()]
    return []
