"""What the transports to Elasticsearch and OpenSearch share: bulk format, indices, versions, outcomes."""
