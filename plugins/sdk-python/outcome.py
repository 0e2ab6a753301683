"""How a call ends, and how a function of an action stops on the way."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Violation:
    """A JSON Pointer into the parameters, and what is wrong there."""

    pointer: str
    message: str


@dataclass(frozen=True)
class Done:
    """What an action came to: its output, and one line for the trace."""

    output: Any
    summary: str


class Failure(Exception):
    """Why an action cannot go on."""


class InvalidParams(Failure):
    def __init__(self, violations: list[Violation]):
        super().__init__("; ".join(f"{v.pointer} {v.message}".strip() for v in violations))
        self.violations = violations


class Refused(Failure):
    def __init__(self, code: str, message: str, retry_after_ms: int | None = None, credential_rejected: bool = False):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retry_after_ms = retry_after_ms
        self.credential_rejected = credential_rejected


class UnexpectedReply(Failure):
    pass


class Perform(BaseException):
    """The function waits for the reply to this request. No `except Exception` on the way can keep it."""

    def __init__(self, request):
        super().__init__()
        self.request = request


def refused(code: str, message: str) -> Failure:
    """The service said no: its own code, and words that say what to do. `raise refused(...)`."""
    return Refused(code, message)


def later(code: str, message: str, after_ms: int) -> Failure:
    """Nothing happened, and the same call may work after so many milliseconds."""
    return Refused(code, message, retry_after_ms=after_ms)


def credential_rejected(code: str, message: str) -> Failure:
    """The service does not accept the credential."""
    return Refused(code, message, credential_rejected=True)


def invalid(pointer: str, message: str) -> Failure:
    """The parameter at this JSON Pointer cannot be used."""
    return InvalidParams([Violation(pointer, message)])


def unexpected(what: str) -> Failure:
    """The service answered in a way that is not known."""
    return UnexpectedReply(what)
