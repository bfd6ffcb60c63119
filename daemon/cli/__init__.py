"""The command `pillowd`: one module for each command, the table of commands, and shared parts."""

from __future__ import annotations
