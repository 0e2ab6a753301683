"""A request, put together step by step. Credentials are named, never held."""

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from .outcome import invalid


@dataclass(frozen=True)
class Text:
    value: str


@dataclass(frozen=True)
class Bytes:
    """As they are; only within a body."""

    value: bytes


@dataclass(frozen=True)
class Credential:
    """The credential of this key; the gateway puts it in."""

    key: str


@dataclass(frozen=True)
class Basic:
    """HTTP Basic (RFC 7617) of two credentials."""

    username_key: str
    password_key: str


Part = Text | Bytes | Credential | Basic


def percent_encoded(value: Any) -> str:
    """Everything but the unreserved characters of RFC 3986. Half of a surrogate pair, which JSON can hold, becomes `?`."""
    return quote(str(value).encode("utf-8", "replace"), safe="")


@dataclass
class Request:
    method: str
    url: list[Part]
    query_fields: list[tuple[str, list[Part]]] = field(default_factory=list)
    header_fields: list[tuple[str, list[Part]]] = field(default_factory=list)
    content_type: str | None = None
    body: list[Part] = field(default_factory=list)

    def path(self, segment: str) -> "Request":
        """Adds `/` and the text, percent-encoded: it stays one segment whatever is in it."""
        if segment in ("", ".", ".."):
            raise invalid("", f"`{segment}` cannot stand in the path of a request")
        return self.raw_path(f"/{percent_encoded(segment)}")

    def raw_path(self, value: str) -> "Request":
        """Adds text to the URL as it is: `/items`."""
        self.url.append(Text(value))
        return self

    def query(self, name: str, value: Any) -> "Request":
        """Left out where there is no value."""
        if value is not None:
            self.query_fields.append((name, [Text(str(value))]))
        return self

    def header(self, name: str, value: str) -> "Request":
        return self._header(name, Text(value))

    def bearer(self, key: str) -> "Request":
        """`Authorization: Bearer` with the credential of this key."""
        return self._header("Authorization", Text("Bearer "), Credential(key))

    def header_credential(self, name: str, key: str) -> "Request":
        """A header that is the credential of this key, and nothing else."""
        return self._header(name, Credential(key))

    def basic(self, username_key: str, password_key: str) -> "Request":
        """`Authorization: Basic` (RFC 7617); both are keys of credentials."""
        return self._header("Authorization", Text("Basic "), Basic(username_key, password_key))

    def _header(self, name: str, *value: Part) -> "Request":
        self.header_fields.append((name, list(value)))
        return self

    def json(self, body: Any) -> "Request":
        return self.content("application/json; charset=utf-8", Text(json.dumps(body, ensure_ascii=False)))

    def form_urlencoded(self, fields: dict[str, str]) -> "Request":
        pairs = [f"{percent_encoded(name)}={percent_encoded(value)}" for name, value in fields.items()]
        return self.content("application/x-www-form-urlencoded", Text("&".join(pairs)))

    def content(self, content_type: str, *parts: Part) -> "Request":
        self.content_type = content_type
        self.body = list(parts)
        return self


def get(url: str) -> Request:
    return Request("GET", [Text(url)])


def post(url: str) -> Request:
    return Request("POST", [Text(url)])


def put(url: str) -> Request:
    return Request("PUT", [Text(url)])


def patch(url: str) -> Request:
    return Request("PATCH", [Text(url)])


def delete(url: str) -> Request:
    return Request("DELETE", [Text(url)])
