"""Streams for clients: states and notable events of all tails, and samples of one tail's data.

The modules that decide are pure (`status_updates`, `samples`) or bounded in memory (`notable_events`,
`taps`). `senders` contains the loop of each stream.
"""

from __future__ import annotations
