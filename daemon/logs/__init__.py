"""The log: its set-up, and the observer that writes it."""
