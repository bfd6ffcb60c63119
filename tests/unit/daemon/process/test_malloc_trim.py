"""Memory goes back to the kernel once after each catch-up."""

from __future__ import annotations

from daemon.process.malloc_trim import Trimmer, trim
from pillows.runtime.status import State


def test_it_is_trimmed_once_when_the_last_pillow_has_caught_up() -> None:
    trims: list[str] = []
    trimmer = Trimmer(lambda: trims.append("now"))
    for states in (
        (State.STARTING, State.STARTING),
        (State.CATCHING_UP, State.LIVE),
        (State.CATCHING_UP, State.CATCHING_UP),
        (State.LIVE, State.CATCHING_UP),
    ):
        trimmer.tick(states)
    assert not trims
    trimmer.tick((State.LIVE, State.FAILED))
    trimmer.tick((State.LIVE, State.LIVE))
    assert trims == ["now"]


def test_trimming_works_wherever_it_is() -> None:
    trim()
