"""One TCP keep-alive setting for every connection: a dead peer is noticed within half a minute.

The kernel probes an idle connection, so a dead peer is not mistaken for a silent one.
"""

from __future__ import annotations

import socket

IDLE_SECONDS = 10
INTERVAL_SECONDS = 5
PROBES = 4

#: Milliseconds that sent data may go without an acknowledgement.
USER_TIMEOUT_MS = 1000 * (IDLE_SECONDS + PROBES * INTERVAL_SECONDS)

#: For `socket.setsockopt`, and for urllib3's `socket_options`.
SOCKET_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, IDLE_SECONDS),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, INTERVAL_SECONDS),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS),
)
