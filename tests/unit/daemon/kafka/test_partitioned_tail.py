"""What becomes of a pillow whose membership in its group has ended."""

from __future__ import annotations

from daemon.kafka.partitioned_tail import _to_crash
from pillows.errors import AccessError, FatalError, FencedError


def test_a_membership_that_was_fenced_is_begun_again_and_any_other_refusal_stands() -> None:
    """A broker that was restarted may take one member for two."""
    fenced = FencedError("Another pillowd runs with the same instance id.", remedy="stop one")
    assert not isinstance(_to_crash(fenced), FatalError)
    refused = AccessError("not allowed")
    assert _to_crash(refused) is refused
