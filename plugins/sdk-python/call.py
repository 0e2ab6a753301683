"""One call, as the function of an action sees it, and the replies that the service gave."""

import json
from dataclasses import dataclass
from typing import Any

from .outcome import Perform, unexpected
from .request import Request

# Characters of a strange body that an error repeats.
SHOWN_CHARS_MAX = 200


@dataclass(frozen=True)
class Reply:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    def header(self, name: str) -> str | None:
        """The first header of this name, whatever its case."""
        return next((value for n, value in self.headers if n.lower() == name.lower()), None)

    @property
    def retry_after_ms(self) -> int | None:
        """`Retry-After` in seconds (RFC 9110, 10.2.3), as milliseconds."""
        value = (self.header("retry-after") or "").strip()
        return int(value) * 1000 if value.isascii() and value.isdigit() and len(value) < 10 else None

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON; None where it is empty."""
        if not self.body:
            return None
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            shown = self.text[:SHOWN_CHARS_MAX]
            raise unexpected(f"status {self.status} with a body that cannot be read ({error}): {shown}") from None


class Call:
    def __init__(self, *, action: str, settings: dict[str, Any], replies: list[Reply], idempotency_key: str, now_ms: int):
        self.action = action
        #: The tenant's settings for the skill, which pass the skill's schema.
        self.settings = settings
        #: The same for every retry of this call: for services that drop a repeated request.
        self.idempotency_key = idempotency_key
        #: When the call was made, in milliseconds since 1970. It stays the same while it is retried.
        self.now_ms = now_ms
        self._replies = list(replies)

    def send(self, request: Request) -> Reply:
        """Has the request carried out and gives its reply."""
        if not self._replies:
            raise Perform(request)
        return self._replies.pop(0)

    def base_url(self, otherwise: str) -> str:
        """Where the service is: the setting `base_url`, or this one, without a slash at its end."""
        return str(self.settings.get("base_url", otherwise)).rstrip("/")
