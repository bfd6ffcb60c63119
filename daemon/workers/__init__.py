"""Worker processes of a pillow: what the daemon sends them, and what they do with it."""

from __future__ import annotations
