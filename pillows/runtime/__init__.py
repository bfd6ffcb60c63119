"""One running tail, from its start to its end."""
