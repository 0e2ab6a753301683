"""Exports a skill as the contract's `skill-adapter`. Only a component can import this."""

import json
from typing import Any

from componentize_py_types import Err
from wit_world.exports import skill_adapter as wit
from wit_world.imports import types

from . import request as plain
from .call import Reply
from .component_common import about_of, clean
from .outcome import Done, InvalidParams, Perform, Refused, UnexpectedReply
from .plugin import Action, Skill, next_step
from .shapes import obj


def adapter(skill: Skill, about: dict[str, Any]) -> type:
    class SkillAdapter:
        def describe(self) -> wit.Manifest:
            return wit.Manifest(
                skill=skill.name,
                about=about_of(about, skill.title, skill.categories),
                actions=[_action(name, action) for name, action in skill.actions.items()],
                hosts=list(skill.hosts),
                host_settings=list(skill.host_settings),
                settings_schema=json.dumps(obj(skill.settings).schema),
            )

        def next(self, call: wit.Invocation, replies: list[wit.Reply]) -> wit.Step:
            told = [Reply(reply.status, list(reply.headers), bytes(reply.body)) for reply in replies]
            try:
                done = next_step(skill, call.action, call.params, call.settings, told,
                                 idempotency_key=call.idempotency_key, now_ms=call.now)
            except Perform as perform:
                return wit.Step_Perform(_request(perform.request))
            except InvalidParams as failure:
                found = [wit.Violation(clean(v.pointer), clean(v.message)) for v in failure.violations]
                raise Err(wit.Failure_InvalidParams(found)) from None
            except Refused as failure:
                refusal = wit.Refusal(clean(failure.code), clean(failure.message), failure.retry_after_ms,
                                      failure.credential_rejected)
                raise Err(wit.Failure_Refused(refusal)) from None
            except UnexpectedReply as failure:
                raise Err(wit.Failure_UnexpectedReply(clean(str(failure)))) from None
            return _finish(done)

    return SkillAdapter


def _finish(done: Done) -> wit.Step:
    return wit.Step_Finish(wit.Outcome(output=json.dumps(done.output), summary=clean(done.summary)))


def _action(name: str, action: Action) -> wit.Action:
    return wit.Action(
        name=name,
        title=action.title,
        summary=action.summary,
        risk=types.Risk[action.risk.upper()],
        params_schema=json.dumps(obj(action.params).schema),
        output_schema=json.dumps(action.output.schema),
        examples=[wit.Example(title, json.dumps(params)) for title, params in action.examples.items()],
        scopes=[wit.Scope(scope, pointer) for scope, pointer in action.scopes.items()],
        credentials=list(action.credentials),
        idempotent=action.risk == "read" if action.idempotent is None else action.idempotent,
        pagination=wit.Pagination(*action.pagination) if action.pagination else None,
    )


def _request(request: plain.Request) -> wit.Request:
    fields = lambda all_: [wit.Field(clean(name), [_part(part) for part in value]) for name, value in all_]
    body = None
    if request.content_type is not None:
        body = wit.Body_Content(wit.Content(clean(request.content_type), [_part(part) for part in request.body]))
    return wit.Request(
        method=wit.Method[request.method],
        url=[_part(part) for part in request.url],
        query=fields(request.query_fields),
        headers=fields(request.header_fields),
        body=body,
    )


def _part(part: plain.Part) -> types.Part:
    match part:
        case plain.Text(value):
            return types.Part_Text(clean(value))
        case plain.Bytes(value):
            return types.Part_Bytes(value)
        case plain.Credential(key):
            return types.Part_Credential(key)
        case plain.Basic(username, password):
            return types.Part_Basic(types.BasicAuth(types.Operand_Credential(username), types.Operand_Credential(password)))
