"""Get the documents of changes, with the change or by `_bulk_get`, as fast as the server allows."""
