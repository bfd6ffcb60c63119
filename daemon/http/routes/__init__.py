"""The handlers of the API, one module for each tag in `openapi.yaml`; see `daemon.http`."""

from __future__ import annotations
