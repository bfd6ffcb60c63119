"""Validate a configuration's nodes, part by part and as a whole."""
