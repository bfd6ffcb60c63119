"""One pillow on many databases: tails take turns, and those without changes are parked."""
