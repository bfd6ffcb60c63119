"""Reads changes and their documents, from CouchDB or a file; the pipeline knows `contract` alone."""
