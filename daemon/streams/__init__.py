"""What a client is sent for minutes: states and notable events of all tails, and samples of one tail's data.

The modules that decide are pure (`status_changes`, `samples`) or hold a bounded memory (`notable_events`,
`taps`). `senders` has the loops that send; one runs for each stream.
"""

from __future__ import annotations
