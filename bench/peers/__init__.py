"""Programs that do a like job, on the same documents and servers: `make bench-peers`."""
