"""The command `pillowd`: its table, one module for each command, and what they share."""

from __future__ import annotations
