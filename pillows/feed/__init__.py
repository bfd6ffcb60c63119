"""Read changes and their documents, from CouchDB or a file; the pipeline imports `base` only."""
