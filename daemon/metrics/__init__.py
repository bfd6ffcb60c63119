"""Metrics for Prometheus: one catalogue, from which the families, their page, and the dashboard are made."""
