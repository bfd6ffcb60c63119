"""A file that entries are appended to: the checkpoint store's format."""
