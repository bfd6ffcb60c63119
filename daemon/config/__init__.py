"""Reads a configuration: YAML in, validated values or every mistake at once out."""

from __future__ import annotations
