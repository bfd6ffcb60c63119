"""The systemd unit in `etc/`, read as systemd reads it."""

from __future__ import annotations

from pathlib import Path

UNIT = Path(__file__).parents[2] / "etc" / "pillowd.service"
#: How the unit calls what the tests call otherwise.
COMMAND = "/opt/pillowd/bin/pillowd"


def read_settings() -> list[tuple[str, str]]:
    """Return all settings in their order; a name may come several times."""
    lines = (line.partition("=") for line in UNIT.read_text().splitlines() if "=" in line and line[0] != "#")
    return [(name, value) for name, _, value in lines]


def read_values(name: str) -> list[str]:
    """Return all values of one setting."""
    return [value for each, value in read_settings() if each == name]
