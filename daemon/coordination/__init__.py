"""Decide which of several daemons runs the pillows, and keep their shared state."""
