"""Start, replace and remove tails, so that two runs never write to the same place."""

from __future__ import annotations

from collections.abc import Mapping

from checkpoints import TailKey
from daemon.reload.difference import Difference, TailParts, overlap
from daemon.supervision.stacks import Run
from daemon.supervision.supervised_tail import TailFactory
from daemon.supervision.supervisor import Supervisor


def exchange_tails(
    supervisor: Supervisor,
    difference: Difference,
    factories: Mapping[TailKey, TailFactory],
    *,
    old: Mapping[TailKey, TailParts],
    new: Mapping[TailKey, TailParts],
) -> list[Run]:
    """Switch the supervisor to the tails of another configuration; do not wait for the old runs to end.

    Args:
        supervisor: runs the tails of the former configuration.
        difference: the added, changed and removed tails.
        factories: build the added and the changed tails.
        old: the parts of the former tails.
        new: the parts of the new tails.

    Returns:
        The runs that will end.
    """
    leaving = {*difference.changed, *difference.removed}
    runs = {key: run for key, run in supervisor.runs.items() if key in leaving}
    places = {key: old[key].places for key in runs}

    def find_former(key: TailKey) -> list[Run]:
        """Return the runs that still write to a place that this tail will write to."""
        taken = new[key].places
        return [run for other, run in runs.items() if other != key and overlap(places[other], taken)]

    for key in difference.changed:
        supervisor.replace(key, factories[key], after=find_former(key))
    for key in difference.added:
        supervisor.add(key, factories[key], after=find_former(key))
        supervisor.start(key)
    for key in difference.removed:
        supervisor.remove(key)
    return list(runs.values())
