"""Exports a policy as the contract's `routing-policy`. Only a component can import this."""

import json
from typing import Any

from wit_world.exports import routing_policy as wit

from .component_common import about_of, clean
from .plugin import Policy, PolicyRequest, decide
from .policy import Allow, Ask, Decision, Deny
from .shapes import obj


def policy_class(policy: Policy, about: dict[str, Any]) -> type:
    class RoutingPolicy:
        def describe(self) -> wit.Manifest:
            return wit.Manifest(
                name=policy.name,
                about=about_of(about, policy.title, policy.categories),
                settings_schema=json.dumps(obj(policy.settings).schema),
                examples=[json.dumps(example) for example in policy.examples],
            )

        def decide(self, request: wit.Request) -> wit.Decision:
            def told(params: Any) -> PolicyRequest:
                return PolicyRequest(skill=request.skill, action=request.action, risk=request.risk.name.lower(),
                                     params=params, now_ms=request.now, contract=request)

            return _decision(decide(policy, request.settings, request.params, told))

    return RoutingPolicy


def _decision(decision: Decision) -> wit.Decision:
    match decision:
        case Allow(instance, model):
            return wit.Decision_Allow(wit.Route(instance, model))
        case Ask(reason, roles, second_person):
            return wit.Decision_Ask(wit.Approval(clean(reason), list(roles), second_person, wit.Route(None, None)))
        case Deny(reason):
            return wit.Decision_Deny(clean(reason))
