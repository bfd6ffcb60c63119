"""Similar programs, on the same documents and servers: `make bench-peers`."""
