"""The records that are lost with one broker."""

from __future__ import annotations

import pytest

from pillows.kafka.durability import describe_weakness


@pytest.mark.parametrize(
    ("copies", "needed", "said"),
    [
        (1, 1, "each record has one copy"),
        (1, 2, "each record has one copy"),
        (2, 1, "one of 2 copies is enough"),
        (3, 1, "one of 3 copies is enough"),
        (2, 2, ""),
        (3, 2, ""),
    ],
)
def test_what_one_broker_takes_along(copies: int, needed: int, said: str) -> None:
    found = describe_weakness(copies, needed)
    assert (said in found) if said else found == ""
