"""Run the tails: start, watch, pause, restart, stop."""
