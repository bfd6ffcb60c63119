"""gevent's HTTP server, with limits and deadlines for slow, broken and hostile clients."""

from __future__ import annotations
