"""Tests a plugin as the plain functions that it is: no gateway, no WebAssembly."""

import json
from dataclasses import dataclass
from typing import Any

from . import request as plain
from .call import Reply
from .outcome import Done, Failure, Perform, Refused
from .plugin import Credentials, Policy, PolicyRequest, Skill, credential_violation, decide, next_step
from .policy import Decision

NOW_MS = 1_700_000_000_000


def _shown(parts: list[plain.Part]) -> str:
    def one(part: plain.Part) -> str:
        match part:
            case plain.Text(value):
                return value
            case plain.Bytes(value):
                return value.decode("utf-8", "replace")
            case plain.Credential(key):
                return f"{{{key}}}"
            case plain.Basic():
                return "{basic}"

    return "".join(one(part) for part in parts)


@dataclass(frozen=True)
class Seen:
    """A request, with credentials as `{key}`."""

    line: str
    headers: dict[str, str]
    body: str

    def json(self) -> Any:
        return json.loads(self.body)


def _seen(request: plain.Request) -> Seen:
    pairs = [f"{plain.percent_encoded(name)}={plain.percent_encoded(_shown(value))}" for name, value in request.query_fields]
    url = _shown(request.url)
    joiner = "&" if "?" in url else "?"
    query = joiner + "&".join(pairs) if pairs else ""
    headers = {name.lower(): _shown(value) for name, value in request.header_fields}
    return Seen(f"{request.method} {url}{query}", headers, _shown(request.body))


class Conversation:
    """One call of an action, and the replies that it was given so far."""

    def __init__(self, skill: Skill, action: str, params: Any, *, settings: dict[str, Any] | None = None, now_ms: int = NOW_MS):
        self._next = lambda replies: next_step(
            skill, action, json.dumps(params), json.dumps(settings or {}), replies,
            idempotency_key="01890000-0000-7000-8000-000000000000", now_ms=now_ms)
        self._replies: list[Reply] = []

    def step(self) -> Done:
        """What the gateway would be told now."""
        return self._next(self._replies)

    def request(self) -> Seen:
        """The request that is asked for now."""
        try:
            done = self.step()
        except Perform as perform:
            return _seen(perform.request)
        raise AssertionError(f"no request is asked for: {done}")

    def reply(self, status: int, body: Any, headers: dict[str, str] | None = None) -> "Conversation":
        """Gives a reply with a body of JSON."""
        return self.reply_with(status, {"content-type": "application/json", **(headers or {})}, json.dumps(body).encode())

    def reply_with(self, status: int, headers: dict[str, str], body: bytes) -> "Conversation":
        self._replies.append(Reply(status, list(headers.items()), body))
        return self

    def finish(self) -> Done:
        """What it came to."""
        try:
            done = self.step()
        except Perform as perform:
            raise AssertionError(f"it is not done; it asks for {_seen(perform.request).line}") from None
        return Done(json.loads(json.dumps(done.output)), done.summary)

    def failure(self) -> Failure:
        """Why it cannot go on."""
        try:
            done = self.step()
        except Perform as perform:
            raise AssertionError(f"it goes on with {_seen(perform.request).line}") from None
        except Failure as failure:
            return failure
        raise AssertionError(f"it is done: {done}")

    def refusal(self) -> Refused:
        """How the service said no."""
        failure = self.failure()
        if isinstance(failure, Refused):
            return failure
        raise AssertionError(f"it was not refused: {failure!r}")


def examples_run(skill: Skill) -> None:
    """Fails unless each example of each action is something that the action takes."""
    for name, action in skill.actions.items():
        for title, params in action.examples.items():
            try:
                Conversation(skill, name, params).step()
            except Perform:
                pass
            except Failure as failure:
                raise AssertionError(f"{name}, `{title}`: {failure!r}") from None


def decision(policy: Policy, settings: Any, *, skill: str = "slack", action: str = "send_message", risk: str = "write",
             params: Any = None, now_ms: int = NOW_MS, contract: Any = None) -> Decision:
    """What the policy says of a call."""
    told = lambda read_params: PolicyRequest(skill, action, risk, read_params, now_ms, contract)
    return decide(policy, json.dumps(settings), json.dumps(params if params is not None else {}), told)


def violation(credentials: Credentials, key: str, value: str) -> str | None:
    """What is wrong with a value for the credential of this key; None where nothing is."""
    return credential_violation(credentials, key, value)
