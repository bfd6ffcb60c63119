"""The demo: the main job on this machine, with nothing to configure."""

from __future__ import annotations
