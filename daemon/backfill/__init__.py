"""Backfills: chosen documents go through a pillow again, beside its feed."""
