"""Speed and memory, side by side with the raw servers and with what a user would write instead."""
