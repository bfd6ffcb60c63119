"""One pipeline from a CouchDB `_changes` feed to any number of targets, in data-flow order."""
