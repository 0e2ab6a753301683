"""What a plugin says of itself, and the contract's functions over it: what `component_*.py` export and `testing.py` calls."""

import json
import re
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .call import Call, Reply
from .log import log
from .outcome import Done, Failure, invalid, unexpected
from .policy import Decision, deny
from .shapes import Shape, obj, read


@dataclass(frozen=True)
class Action:
    title: str
    summary: str
    params: Mapping[str, Shape]
    output: Shape
    #: Parameters by what they do, in a few words; at least one.
    examples: Mapping[str, Any]
    run: Callable[[Call, dict[str, Any]], Done]
    #: "read", "write" or "destructive"
    risk: str = "read"
    #: What a tenant may restrict, and the JSON Pointer to its values in the parameters.
    scopes: Mapping[str, str] = field(default_factory=dict)
    #: Keys of the credentials that it needs.
    credentials: list[str] = field(default_factory=list)
    #: Whether the service drops a repeated request; a reading action may be repeated in any case.
    idempotent: bool | None = None
    #: JSON Pointers to the cursor in the parameters and to the next one in the output.
    pagination: tuple[str, str] | None = None


@dataclass(frozen=True)
class Skill:
    name: str
    title: str
    actions: Mapping[str, Action]
    categories: list[str] = field(default_factory=lambda: ["other"])
    hosts: list[str] = field(default_factory=list)
    settings: Mapping[str, Shape] = field(default_factory=dict)
    #: JSON Pointers to settings whose hosts requests may go to as well.
    host_settings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Credential:
    #: "api-key", "oauth-token", "bot-token", "pat" or "secret"
    kind: str
    label: str
    help: str = ""
    placeholder: str = ""
    required: bool = True
    scopes: list[str] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    min_length: int = 1
    max_length: int = 4096
    pattern: str = r"[!-~]+"


@dataclass(frozen=True)
class Credentials:
    fields: Mapping[str, Credential]
    #: Of another plugin's skill; the plugin's own, unless given.
    skill: str | None = None
    title: str | None = None
    categories: list[str] | None = None


@dataclass(frozen=True)
class PolicyRequest:
    """One call that a policy decides on; `contract` has all that the contract gives, as it gives it."""

    skill: str
    action: str
    risk: str
    params: Any
    now_ms: int
    contract: Any


@dataclass(frozen=True)
class Policy:
    name: str
    title: str
    settings: Mapping[str, Shape]
    #: Settings that the policy takes.
    examples: list[Any]
    decide: Callable[[PolicyRequest, dict[str, Any]], Decision]
    categories: list[str] = field(default_factory=lambda: ["policy"])


def parsed(what: str, text: str) -> Any:
    try:
        return json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise invalid("", f"the {what} are no JSON: {error}") from None


def next_step(skill: Skill, action_name: str, params: str, settings: str, replies: list[Reply], *,
              idempotency_key: str, now_ms: int) -> Done:
    """What a call comes to; `Perform` where it waits for a reply, a `Failure` where it cannot go on."""
    try:
        action = skill.actions.get(action_name)
        if action is None:
            raise invalid("", f"there is no action `{action_name}`")
        read_params = read(obj(action.params), parsed("parameters", params))
        read_settings = read(obj(skill.settings), parsed("settings", settings))
        call = Call(action=action_name, settings=read_settings, replies=replies, idempotency_key=idempotency_key,
                    now_ms=now_ms)
        return action.run(call, read_params)
    except Failure:
        raise
    except Exception as error:
        log.error(traceback.format_exc())
        raise unexpected(f"the plugin itself failed: {error!r}") from None


def credential_violation(credentials: Credentials, key: str, value: str) -> str | None:
    """What is wrong with the shape of a value, and nothing else of it."""
    known = credentials.fields.get(key, Credential("secret", ""))
    if value == "":
        return "empty"
    if not re.fullmatch(known.pattern, value):
        return "wrong-characters"
    if known.prefixes and not value.startswith(tuple(known.prefixes)):
        return "wrong-prefix"
    if len(value) < known.min_length:
        return "too-short"
    return "too-long" if len(value) > known.max_length else None


def decide(policy: Policy, settings: str, params: str, request: Callable[[Any], PolicyRequest]) -> Decision:
    """Answers for every request: what cannot be read is denied."""
    try:
        read_settings = read(obj(policy.settings), parsed("settings", settings))
        return policy.decide(request(parsed("parameters", params)), read_settings)
    except Failure as failure:
        return deny(f"the policy {policy.name} cannot be applied: {failure}")
    except Exception as error:
        log.error(traceback.format_exc())
        return deny(f"the policy {policy.name} failed: {error!r}")
