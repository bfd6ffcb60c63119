"""One index of a cluster: its name, its definition and its owner."""
