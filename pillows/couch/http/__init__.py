"""HTTP to CouchDB servers: sessions, and responses that are bounded and give way."""
