"""A mirror: a target kept equal to one database, without a configuration file."""

from __future__ import annotations
