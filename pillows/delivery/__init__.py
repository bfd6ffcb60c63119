"""Batches on their way to the transports."""
