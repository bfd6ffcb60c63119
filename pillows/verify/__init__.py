"""Compares a source with the targets of a pillow, document by document, and repairs what differs."""
