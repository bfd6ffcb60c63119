"""Metrics for Prometheus. `catalogue` names them all; the reference page is made from it."""
