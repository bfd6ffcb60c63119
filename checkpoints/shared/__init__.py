"""Stores used by many processes through one that owns them."""
