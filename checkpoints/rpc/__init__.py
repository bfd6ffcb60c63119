"""Remote calls over a unix socket: framing, server and client."""
