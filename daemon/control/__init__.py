"""The control API: all operations on pillowd, in a running daemon or on its files.

The daemon serves it by HTTP (`daemon.http`). A command that finds no daemon calls the same handlers itself,
on the state directory. Every call returns JSON values.
"""

from __future__ import annotations
