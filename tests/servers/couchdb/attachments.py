"""Attachments as documents carry them: inline, as stubs, or following in a multipart body."""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.servers.couchdb.errors import Refusal, bad_request, function_clause
from tests.servers.couchdb.revisions import Attachment

COMPRESSED = ("text/", "application/javascript", "application/json", "application/xml")
LEVEL = 8

Take = Callable[[str], bytes]


def make_attachment(name: str, content_type: str, content: bytes, revpos: int) -> Attachment:
    """Return an attachment of some content, compressed where CouchDB would."""
    encoding, data = "", content
    if content_type.startswith(COMPRESSED):
        packer = zlib.compressobj(LEVEL, zlib.DEFLATED, 31)
        encoding, data = "gzip", packer.compress(content) + packer.flush()
    digest = hashlib.md5(data, usedforsecurity=False).digest()
    return Attachment(name, content_type, digest, len(content), encoding, revpos, data)


def content_of(attachment: Attachment) -> bytes:
    """Return the content as it was sent."""
    return zlib.decompress(attachment.data, 31) if attachment.encoding else attachment.data


def digest_text(attachment: Attachment) -> str:
    """Return the digest as texts show it."""
    return base64.b64encode(attachment.digest).decode()


def check_name(name: str) -> None:
    """Refuse a name that no attachment may have."""
    if name.startswith("_"):
        raise bad_request(f"Attachment name '{name}' starts with prohibited character '_'")


class Sent:
    """The attachments that a document was sent with.

    Args:
        members: the value of `_attachments`.
        largest: how large one may be.
        take: returns the content of one that follows in a multipart body.
    """

    def __init__(self, members: Mapping[str, Any], largest: float, take: Take | None = None) -> None:
        self._entries: list[tuple[str, dict[str, Any], bytes | None]] = []
        for name, entry in members.items():
            check_name(name)
            self._entries.append((name, entry, _content(name, entry, take)))
        for name, _, content in self._entries:
            if content is not None and len(content) > largest:
                raise Refusal(413, "attachment_too_large", name)

    @property
    def stubs(self) -> bool:
        """Whether some of them must be taken from the revision before."""
        return any(content is None for _, _, content in self._entries)

    def resolve(
        self,
        doc_id: str,
        generation: int,
        before: Sequence[Attachment],
        *,
        keep_revpos: bool = False,
        lenient: bool = False,
    ) -> tuple[Attachment, ...]:
        """Return the attachments of the new revision.

        Args:
            doc_id: for the error's text.
            generation: of the new revision.
            before: the attachments of the parent revision.
            keep_revpos: whether they come from a replication, with the generations that brought them.
            lenient: leave out stubs that name nothing.

        Raises:
            Refusal: a stub names nothing.
        """
        known = {attachment.name: attachment for attachment in before}
        found: list[Attachment] = []
        for name, entry, content in self._entries:
            if content is None:
                if name not in known and not lenient:
                    raise Refusal(412, "missing_stub", f"Invalid attachment stub in {doc_id} for {name}")
                found += [known[name]] if name in known else []
                continue
            kind = str(entry.get("content_type", "application/octet-stream"))
            revpos = int(entry.get("revpos", generation)) if keep_revpos else generation
            found.append(make_attachment(name, kind, content, revpos))
        return tuple(found)


def _content(name: str, entry: Any, take: Take | None) -> bytes | None:
    """Return the content that was sent, None for a stub."""
    if not isinstance(entry, dict):
        raise bad_request(f"Invalid attachment data for {name}")
    if entry.get("stub") is True:
        _check_digest(entry.get("digest"))
        return None
    if entry.get("follows") is True and take is not None:
        return take(name)
    try:
        return base64.b64decode(entry["data"], validate=True)
    except (KeyError, TypeError, binascii.Error, ValueError):
        raise bad_request(f"Invalid attachment data for {name}") from None


def _check_digest(digest: Any) -> None:
    """Fail as CouchDB does if the digest is not valid."""
    if digest is None:
        return
    try:
        base64.b64decode(str(digest).removeprefix("md5-"), validate=True)
    except (binascii.Error, ValueError):
        raise function_clause() from None


def describe(
    attachment: Attachment, *, inline: bool = False, follows: bool = False, encoding_info: bool = False
) -> dict[str, Any]:
    """Return an attachment's entry in `_attachments`."""
    shown: dict[str, Any] = {
        "content_type": attachment.content_type,
        "revpos": attachment.revpos,
        "digest": f"md5-{digest_text(attachment)}",
    }
    if inline:
        shown["data"] = base64.b64encode(content_of(attachment)).decode()
    else:
        shown |= {"length": attachment.length, "follows" if follows else "stub": True}
    if attachment.encoding and encoding_info:
        shown |= {"encoding": attachment.encoding, "encoded_length": len(attachment.data)}
    return shown
