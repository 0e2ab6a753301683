"""What a routing policy answers."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Allow:
    """It may go ahead; where it goes is left to the gateway, unless it is said."""

    instance: str | None = None
    model: str | None = None


@dataclass(frozen=True)
class Deny:
    reason: str


@dataclass(frozen=True)
class Ask:
    """A person must agree first: of these roles, or whoever the tenant's rules name."""

    reason: str
    roles: list[str] = field(default_factory=list)
    second_person: bool = False


Decision = Allow | Deny | Ask


def allow(*, instance: str | None = None, model: str | None = None) -> Decision:
    return Allow(instance, model)


def deny(reason: str) -> Decision:
    """Whoever called reads the reason."""
    return Deny(reason)


def ask(reason: str, *, roles: list[str] | None = None, second_person: bool = False) -> Decision:
    return Ask(reason, roles or [], second_person)
