"""CouchDB as a target."""
