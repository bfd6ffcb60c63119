"""An append-only file of entries: the checkpoint store's format."""
