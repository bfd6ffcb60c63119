"""What follows the deaths of workers, cause by cause."""

from __future__ import annotations

import pytest

from pillows.parallel.deaths import MAX_KILLED, Deaths, Verdict
from pillows.parallel.process import Cause

AGAIN, HALVE, LETTER, STOP = Verdict.AGAIN, Verdict.HALVE, Verdict.DEAD_LETTER, Verdict.STOP


@pytest.mark.parametrize(
    ("halved", "changes", "causes", "verdicts"),
    [
        (False, 1000, [Cause.CRASHED] * 3, [AGAIN, AGAIN, HALVE]),
        (True, 500, [Cause.CRASHED], [HALVE]),
        (True, 1, [Cause.CRASHED], [LETTER]),
        (False, 1, [Cause.CRASHED] * 3, [AGAIN, AGAIN, LETTER]),
        (False, 1000, [Cause.HUNG], [HALVE]),
        (False, 1000, [Cause.MEMORY], [HALVE]),
        (True, 1, [Cause.HUNG] * 3, [AGAIN, AGAIN, LETTER]),  # SIGSTOP of an operator hangs, too
        (False, 1, [Cause.MEMORY] * 3, [AGAIN, AGAIN, LETTER]),
        (False, 1000, [Cause.KILLED] * 6, [AGAIN, AGAIN, HALVE, AGAIN, AGAIN, HALVE]),
        (True, 500, [Cause.KILLED] * 3, [AGAIN, AGAIN, HALVE]),
        (True, 1, [Cause.KILLED] * MAX_KILLED, [AGAIN] * (MAX_KILLED - 1) + [STOP]),
        (False, 1, [Cause.CRASHED, Cause.KILLED, Cause.CRASHED], [AGAIN, AGAIN, AGAIN]),
    ],
)
def test_the_verdicts(halved, changes, causes, verdicts):
    deaths = Deaths(halved=halved)
    assert [deaths.judge(cause, changes) for cause in causes] == verdicts


def test_one_bad_document_takes_fifteen_workers_at_most():
    """Down from a full chunk: three of the whole, and one of each half that holds the document."""
    died, changes, deaths = 0, 1000, Deaths()
    while True:
        died += 1
        verdict = deaths.judge(Cause.CRASHED, changes)
        if verdict is LETTER:
            break
        if verdict is HALVE:
            changes, deaths = -(-changes // 2), Deaths(halved=True)
    assert died <= 15


@pytest.mark.parametrize("changes", [1, 2, 1000])
@pytest.mark.parametrize("halved", [False, True])
def test_signals_from_outside_never_make_a_dead_letter(changes, halved):
    deaths = Deaths(halved=halved)
    assert LETTER not in {deaths.judge(Cause.KILLED, changes) for _ in range(300)}
