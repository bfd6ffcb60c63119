"""One index of a cluster: its name, what it is made of, who owns it."""
