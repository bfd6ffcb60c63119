"""Code of the transports to both Elasticsearch and OpenSearch: bulk format, indices, versions, outcomes."""
