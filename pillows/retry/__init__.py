"""Retries: back-off and cancellable waits."""
