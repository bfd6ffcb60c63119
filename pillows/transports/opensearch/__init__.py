"""OpenSearch as a target."""
