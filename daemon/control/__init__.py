"""What an operator can ask for: the same calls in the running daemon and on its files.

The daemon serves them on its control socket; a command that finds no daemon makes them itself on the
state directory. Every call takes and returns what JSON can hold.
"""

from __future__ import annotations
