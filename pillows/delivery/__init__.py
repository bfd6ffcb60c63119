"""Deliver batches to the transports."""
