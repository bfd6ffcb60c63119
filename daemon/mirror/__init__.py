"""A mirror: a target kept equal to one database, without a configuration of the operator's own."""

from __future__ import annotations
