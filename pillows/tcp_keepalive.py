"""One TCP keep-alive setting for every connection: a dead peer is noticed within a minute.

The kernel probes an idle connection, so silence on a stream is told from a peer that is gone.
"""

from __future__ import annotations

import socket

IDLE_SECONDS = 30
INTERVAL_SECONDS = 10
PROBES = 3

#: For `socket.setsockopt`, and for urllib3's `socket_options`.
SOCKET_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, IDLE_SECONDS),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, INTERVAL_SECONDS),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES),
)
