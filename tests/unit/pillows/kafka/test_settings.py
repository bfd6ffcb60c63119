"""Settings that must never be left to the library's defaults."""

from __future__ import annotations

from pillows.kafka.group import Group
from pillows.kafka.options import KafkaConnection
from pillows.kafka.settings import make_member_settings


def test_a_member_neither_commits_nor_resets_by_itself() -> None:
    """A position that is gone must be refused, and one that was revoked must not move."""
    options = KafkaConnection(servers=("127.0.0.1:9092",))
    settings = make_member_settings(options, Group(id="g", instance_id="i"))
    assert settings["auto.offset.reset"] == "error"
    assert settings["enable.auto.commit"] is False
    assert settings["enable.auto.offset.store"] is False
    assert settings["isolation.level"] == "read_committed"
    assert settings["group.instance.id"] == "i"
