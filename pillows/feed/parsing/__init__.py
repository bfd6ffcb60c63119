"""Parse responses of `_changes`: bytes to rows, rows to changes."""
