"""The settings of a node, as `/_node/_local/_config` shows them."""

from __future__ import annotations

from tests.servers.couchdb.documents import Limits

UNLIMITED = 2**63


class Config:
    """The settings that were made; all others have CouchDB's default, which `get` of a key does not show."""

    def __init__(self) -> None:
        self.sections: dict[str, dict[str, str]] = {}

    def get(self, section: str, key: str, default: str = "") -> str:
        """Return a setting."""
        return self.sections.get(section, {}).get(key, default)

    def set(self, section: str, key: str, value: str | None) -> str:
        """Change a setting, or remove it; return its former value."""
        before = self.get(section, key)
        if value is None:
            self.sections.get(section, {}).pop(key, None)
        else:
            self.sections.setdefault(section, {})[key] = value
        return before

    def number(self, section: str, key: str, default: int) -> int:
        """Return a setting that is a number."""
        text = self.get(section, key)
        return int(text) if text.isdigit() else default

    @property
    def maintenance_mode(self) -> str:
        """Whether the node is in maintenance: `true`, `nolb` or empty."""
        mode = self.get("couchdb", "maintenance_mode")
        return "" if mode == "false" else mode

    @property
    def session_seconds(self) -> int:
        """How long a session lasts."""
        return self.number("chttpd_auth", "timeout", 600)

    @property
    def largest_request(self) -> int:
        """How large a request's body may be."""
        return self.number("chttpd", "max_http_request_size", 2**32)

    @property
    def limits(self) -> Limits:
        """How large documents and attachments may be."""
        return Limits(
            document=self.number("couchdb", "max_document_size", 8_000_000),
            attachment=self.number("couchdb", "max_attachment_size", UNLIMITED),
        )
