"""The process around the pillows: configuration, supervision, signals, the command."""

from __future__ import annotations

#: Tells `pillowd.py` that this is pillowd's `daemon` and no other distribution's.
DISTRIBUTION = "pillowd"
