"""Build tails from a configuration: the only place where settings become parts."""

from __future__ import annotations
