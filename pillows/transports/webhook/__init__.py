"""A webhook as a target."""
