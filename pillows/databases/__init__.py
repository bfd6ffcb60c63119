"""One pillow on many databases: their tails take turns, and those without changes are parked."""
