"""Elasticsearch as a target."""
