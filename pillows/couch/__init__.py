"""Talk to CouchDB servers, for feeds and transports: requests, authentication, documents, errors."""
