"""Backfills: send chosen documents through a pillow again, beside its feed."""
