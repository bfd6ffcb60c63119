"""Apply a changed configuration to the running daemon."""
