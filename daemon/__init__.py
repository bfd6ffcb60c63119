"""The process around the pillows: configuration, supervision, signals, the command."""

from __future__ import annotations

#: Marks this package for `pillowd.py`: another distribution may install a `daemon` too.
DISTRIBUTION = "pillowd"
