"""The control API: the calls that the command makes, in a running daemon or on its files.

The daemon serves them on its control socket. A command that finds no daemon makes them itself, on the
state directory. Every call takes and returns JSON values.
"""

from __future__ import annotations
