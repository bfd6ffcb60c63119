"""Kafka's client library under gevent: for topics as targets, and for the topics of a service."""
