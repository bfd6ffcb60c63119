"""Stores that many processes use through the one process that owns them."""
