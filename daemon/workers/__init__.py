"""Worker processes of a pillow: their setup by the daemon, and their work."""

from __future__ import annotations
