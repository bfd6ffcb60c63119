"""FakeCouch: a small sharded CouchDB with everything that is legal and unpleasant about a cluster.

Rows of different shards come in another order every time, tokens are never the same twice, shards
are replayed from their beginning, rows and documents come from copies that lag, and responses are
cut at any byte. What it serves is always allowed: whoever reads to its head and keeps the newest
state of each document ends with the database's content.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.servers.scripted import CLOSE, LAST_CHUNK, Request, Script, ScriptedServer, chunk, head, json_reply

Leaves = dict[str, bool]
"""Leaf revision -> whether it is a deletion."""


def generation(rev: str) -> int:
    return int(rev.partition("-")[0])


def winner(leaves: Leaves) -> str:
    return max(leaves, key=lambda rev: (not leaves[rev], generation(rev), rev.partition("-")[2]))


def version(leaves: Leaves) -> int:
    return sum(map(generation, leaves))


@dataclass(kw_only=True)
class Nuisance:
    """The probabilities of faults, for each response, row or document."""

    rewind: float = 0.0
    stale: float = 0.0
    cut: float = 0.0
    error: float = 0.0
    missing: float = 0.0


@dataclass(kw_only=True)
class Seen:
    """The events so far."""

    rewinds: int = 0
    stale: int = 0
    cuts: int = 0
    errors: int = 0
    missing: int = 0
    rows: int = 0
    requests: int = 0


@dataclass
class Shard:
    """One shard: every document once, at the position of its last change."""

    last: int = 0
    position: dict[str, int] = field(default_factory=dict)

    def touch(self, id: str) -> None:
        self.last += 1
        self.position[id] = self.last

    def after(self, since: int) -> list[tuple[int, str]]:
        return sorted((at, id) for id, at in self.position.items() if at > since)


class FakeCouch:
    """The server.

    Args:
        random: decides everything that chance decides.
        shards: how many there are.
        documents: how many documents operations choose from.
        nuisance: how often what goes wrong.
        page_rows: no page has more rows.

    Attributes:
        to_come: operations that have not happened yet; every response lets some happen.
        seen: what went wrong.
    """

    def __init__(
        self, random: Random, *, shards: int, documents: int, nuisance: Nuisance, page_rows: int
    ) -> None:
        self.nuisance = nuisance
        self.seen = Seen()
        self.to_come = 0
        self.docs: dict[str, Leaves] = {}
        self._past: dict[str, list[Leaves]] = {}
        self._random = random
        self._shards = [Shard() for _ in range(shards)]
        self._names = [f"doc-{n}" for n in range(documents)]
        self._page_rows = page_rows

    def serve(self, server: ScriptedServer) -> None:
        """Answers through a scripted server."""
        server.on("GET", "/", json_reply({"couchdb": "Welcome", "uuid": "u"}))
        server.on("GET", "/db", json_reply({"instance_start_time": "1700000000", "purge_seq": "0"}))
        server.on("GET", "/db/_changes", self._changes)
        server.on("POST", "/db/_bulk_get", self._bulk_get)
        server.on("POST", "/db/_all_docs", self._all_docs)

    def write(self) -> None:
        """One random change of state."""
        random = self._random
        id = random.choice(self._names)
        leaves = dict(self.docs.get(id, {}))
        self._past.setdefault(id, []).append(leaves)
        kind = random.random()
        if leaves and kind > 0.25:
            # A child of the winner, or of any other leaf: an edit, or a deletion.
            parent = winner(leaves) if kind > 0.5 else random.choice(sorted(leaves))
            del leaves[parent]
            born, deleted = generation(parent) + 1, random.random() < 0.25
        else:
            born, deleted = random.randint(1, 3), random.random() < 0.1
        leaves[f"{born}-{random.getrandbits(64):016x}"] = deleted
        self.docs[id] = leaves
        self._shard(id).touch(id)

    def head(self) -> tuple[int, ...]:
        """The position of each shard."""
        return tuple(shard.last for shard in self._shards)

    def positions(self, token: str) -> tuple[int, ...]:
        """The position of each shard that a token stands for."""
        if token == "0":
            return tuple(0 for _ in self._shards)
        opaque = token.partition("-")[2]
        positions = json.loads(urlsafe_b64decode(opaque))["at"]
        return tuple(positions)

    def changed_by(self, token: str) -> dict[str, Leaves]:
        """The documents whose last change a token covers."""
        return {
            id: self.docs[id]
            for shard, at in zip(self._shards, self.positions(token), strict=True)
            for id, position in shard.position.items()
            if position <= at
        }

    # --- answers

    def _changes(self, request: Request) -> Script:
        self._live()
        if self._random.random() < self.nuisance.error:
            self.seen.errors += 1
            return json_reply({"error": "internal_server_error", "reason": "No DB shards"}, 500)
        body = self._body(request.query)
        if self._random.random() < self.nuisance.cut:
            self.seen.cuts += 1
            return self._cut(body)
        return head(chunked=True) + self._chunked(body) + LAST_CHUNK

    def _live(self) -> None:
        self.seen.requests += 1
        for _ in range(min(self.to_come, self._random.randint(0, 12))):
            self.to_come -= 1
            self.write()

    def _body(self, query: dict[str, str]) -> bytes:
        at = [self._rewound(position) for position in self.positions(query["since"])]
        limit = int(query.get("limit", 10**15))
        interval = int(query.get("seq_interval", 1))
        rows = self._rows(
            at, min(limit, self._page_rows) if query.get("feed", "normal") != "continuous" else limit
        )
        lines = []
        for number, (shard, position, id, leaves) in enumerate(rows, start=1):
            if shard is not None:
                at[shard] = position
            seq = self._token(at) if (limit - number + 1) % interval == 0 else None
            lines.append(self._row(seq, id, leaves, "include_docs" in query))
        self.seen.rows += len(lines)
        pending = sum(len(s.after(p)) for s, p in zip(self._shards, at, strict=True))
        closing = json.dumps({"last_seq": self._token(at), "pending": pending})
        if query.get("feed", "normal") == "continuous":
            return b"\n" + b"".join(line + b"\n" for line in lines) + closing.encode() + b"\n\n"
        return b'{"results":[\n' + b",\r\n".join(lines) + b"\n],\n" + closing[1:].encode() + b"\n"

    def _rewound(self, position: int) -> int:
        if position and self._random.random() < self.nuisance.rewind:
            self.seen.rewinds += 1
            return 0
        return position

    def _rows(self, at: list[int], limit: int) -> list[tuple[int | None, int, str, Leaves]]:
        """Rows of all shards, shuffled together, with older states of documents strewn in."""
        waiting = [shard.after(position) for shard, position in zip(self._shards, at, strict=True)]
        rows: list[tuple[int | None, int, str, Leaves]] = []
        while any(waiting) and len(rows) < limit:
            shard = self._random.choice([n for n, left in enumerate(waiting) if left])
            position, id = waiting[shard].pop(0)
            rows.append((shard, position, id, self.docs[id]))
            past = [leaves for leaves in self._past.get(id, []) if leaves]
            if past and len(rows) < limit and self._random.random() < self.nuisance.stale:
                self.seen.stale += 1
                rows.append((None, 0, id, self._random.choice(past)))
        return rows

    def _row(self, seq: str | None, id: str, leaves: Leaves, include_docs: bool) -> bytes:
        first = winner(leaves)
        revs = [first, *(rev for rev in leaves if rev != first)]
        row: dict[str, Any] = {"seq": seq, "id": id, "changes": [{"rev": rev} for rev in revs]}
        if leaves[first]:
            row["deleted"] = True
        if include_docs:
            row["doc"] = self.body(id, first, deleted=leaves[first])
        return json.dumps(row, separators=(",", ":")).encode()

    @staticmethod
    def body(id: str, rev: str, *, deleted: bool = False) -> dict[str, Any]:
        """A document's content: any revision's is its own."""
        doc = {"_id": id, "_rev": rev, "content": f"{id} at {rev}"}
        return {**doc, "_deleted": True} if deleted else doc

    def _token(self, at: list[int]) -> str:
        opaque = json.dumps({"at": at, "nonce": self._random.getrandbits(32)}).encode()
        return f"{self._random.randint(0, 99)}-{urlsafe_b64encode(opaque).decode()}"

    def _chunked(self, body: bytes) -> bytes:
        parts, begin = [], 0
        while begin < len(body):
            length = self._random.choice([1, 17, 300, 1490, 5000])
            parts.append(chunk(body[begin : begin + length]))
            begin += length
        return b"".join(parts)

    def _cut(self, body: bytes) -> Script:
        whole = self._chunked(body)
        if self._random.random() < 0.5:
            return [head(chunked=True) + whole[: self._random.randint(0, len(whole))], CLOSE]
        part = body[: self._random.randint(0, len(body) - 1)]
        return head(chunked=True) + self._chunked(part) + LAST_CHUNK

    def _bulk_get(self, request: Request) -> Script:
        self._live()
        results = [self._found(one["id"], one.get("rev")) for one in request.json()["docs"]]
        self._random.shuffle(results)
        return json_reply({"results": results})

    def _found(self, id: str, rev: str | None) -> dict[str, Any]:
        leaves = self.docs[id]
        if rev is None:
            found = [{"ok": self.body(id, leaf, deleted=leaves[leaf])} for leaf in sorted(leaves)]
            return {"id": id, "docs": found}
        if rev not in leaves or self._random.random() < self.nuisance.missing:
            self.seen.missing += 1
            error = {"id": id, "rev": rev, "error": "not_found", "reason": "missing"}
            return {"id": id, "docs": [{"error": error}]}
        return {"id": id, "docs": [{"ok": self.body(id, rev, deleted=leaves[rev])}]}

    def _all_docs(self, request: Request) -> Script:
        return json_reply({"rows": [{"key": id, "id": id} for id in request.json()["keys"]]})

    def _shard(self, id: str) -> Shard:
        return self._shards[self._names.index(id) % len(self._shards)]
