"""Backfills: send chosen documents through a pillow again, while it follows its feed."""
