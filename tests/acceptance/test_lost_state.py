"""The state directory is gone: nothing is guessed, the remedies are named, and they work."""

from __future__ import annotations

import shutil
from functools import partial
from typing import Any

import pytest

from tests.acceptance.process import Pillowd
from tests.acceptance.world import Runs, World, call, live, statuses

EPOCH = 3


def at_epoch_3(world: World, *targets: str, **others: Any) -> Pillowd:
    """A stopped daemon whose pillow `cases` was reset twice; all are caught up."""
    world.fill(300)
    daemon = world.pillowd({"cases": world.pillow("cases", *targets), **others})
    daemon.start()
    for epoch in range(1, EPOCH + 1):
        daemon.wait_for(partial(_is_live_at, daemon, epoch))
        if epoch < EPOCH:
            call(daemon, "reset_checkpoint", key="cases", if_match="*")
    assert world.differences("cases", *targets) == {}
    assert daemon.stop() == 0
    return daemon


def _is_live_at(daemon: Pillowd, epoch: int) -> bool:
    return _at(daemon, epoch) and live(daemon)


def _at(daemon: Pillowd, epoch: int) -> bool:
    """Whether the pass of that epoch is completed."""
    said = statuses(daemon).get("cases")
    return said is not None and (said["epoch"], said["pass_number"]) == (epoch, None)


def _failures(daemon: Pillowd) -> list[str]:
    """Returns the reasons in the log of pillows that have failed."""
    return [each["reason"] for each in daemon.events("pillow.state") if each["state"] == "failed"]


def change(world: World) -> int:
    """Changes, deletes, adds, and makes vanish without a trace. Returns how many rows that makes."""
    ids = sorted(world.couch.documents())
    world.couch.put(ids[0], n="changed")
    world.couch.delete(ids[1])
    world.fill(10, start=300)
    return 12


@pytest.mark.parametrize("targets", [("elasticsearch",), ("sqlite", "elasticsearch")], ids="+".join)
def test_a_lost_state_directory_is_refused_until_it_is_reset(world: World, targets: tuple[str, ...]) -> None:
    daemon = at_epoch_3(world, *targets, other=world.pillow("other", "postgres"))
    shutil.rmtree(daemon.folder / "state")
    change(world)
    world.couch.purge(sorted(world.couch.documents())[5])

    daemon.start()
    daemon.wait_for(lambda: statuses(daemon)["cases"]["state"] == "failed")
    daemon.wait_for(lambda: live(daemon, "other"))
    (said,) = [each for each in daemon.ask("status")["pillows"] if each["pillow"] == "cases"]
    assert said["state"] == "failed"
    remedies = ("checkpoint import cases FILE", "checkpoint reset cases")
    for part in (f"epoch {EPOCH}", "checkpoint is gone", *remedies):
        assert part in said["reason"]
    daemon.wait_for(lambda: _failures(daemon) == [said["reason"]])
    assert world.read(targets[0], "cases").keys() != world.couch.documents().keys(), "nothing was written"

    assert daemon.command("checkpoint", "reset", "cases").returncode == 0
    daemon.wait_for(partial(_is_live_at, daemon, EPOCH + 1))
    assert world.differences("cases", *targets) == {}
    assert daemon.stop() == 0


@pytest.mark.parametrize("target", ["postgres", "sqlite"])
def test_a_target_with_the_checkpoint_in_its_transactions_is_resumed_from(world: World, target: str) -> None:
    """The target is the only one of its pillow. Changes that were read before are not read again."""
    runs = Runs(world.proxy)
    daemon = at_epoch_3(world, target)
    runs.ended()
    shutil.rmtree(daemon.folder / "state")
    rows = change(world)

    daemon.start()
    daemon.wait_for(lambda: live(daemon))
    daemon.wait_for(lambda: not world.differences("cases", target))
    assert statuses(daemon)["cases"]["epoch"] == EPOCH
    assert daemon.events("checkpoint.taken_from_target")
    assert daemon.stop() == 0
    runs.ended()
    assert runs.sent()[-1].rows.total() == rows
