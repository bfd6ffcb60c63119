"""The tests' CouchDB."""
