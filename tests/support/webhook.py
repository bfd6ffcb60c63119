"""A webhook that keeps the newest version of each document, as a receiver should."""

from __future__ import annotations

from typing import Any

from tests.servers.scripted import Request, ScriptedServer, head, json_reply


class Webhook:
    """Receive documents; refuse those whose id begins with "bad".

    Args:
        server: where it listens, under `/hook`.

    Attributes:
        documents: id -> the newest version that came.
    """

    def __init__(self, server: ScriptedServer) -> None:
        self.server = server
        self.documents: dict[str, dict[str, Any]] = {}
        server.on("POST", "/hook", self.take)

    @property
    def url(self) -> str:
        return f"{self.server.url}/hook"

    @property
    def requests(self) -> list[Request]:
        return self.server.requests

    def take(self, request: Request) -> bytes:
        """Answer one request."""
        sent = request.json()
        bad = [one["id"] for one in sent["documents"] if one["id"].startswith("bad")]
        if bad:
            return json_reply({"error": f"{bad[0]} is bad"}, 422)
        for one in sent["documents"]:
            if one["version"] > self.documents.get(one["id"], {"version": -1})["version"]:
                self.documents[one["id"]] = one
        return head(204, length=0)
