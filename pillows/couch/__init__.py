"""Talks to CouchDB servers, for those who read and those who write: requests, log-in, what answers mean."""
