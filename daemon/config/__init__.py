"""Read a configuration: YAML to validated settings, or to every problem at once."""

from __future__ import annotations
