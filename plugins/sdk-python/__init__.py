"""What a plugin imports."""

from .call import Call, Reply
from .log import log
from .outcome import Done, credential_rejected, invalid, later, refused, unexpected
from .plugin import Action, Credential, Credentials, Policy, PolicyRequest, Skill
from .policy import allow, ask, deny
from .request import Request, delete, get, patch, post, put
from .shapes import anything, choice, flag, integer, list_of, number, obj, optional, text

__all__ = [
    "Action", "Call", "Credential", "Credentials", "Done", "Policy", "PolicyRequest", "Reply", "Request", "Skill",
    "allow", "anything", "ask", "choice", "credential_rejected", "delete", "deny", "flag", "get", "integer", "invalid",
    "later", "list_of", "log", "number", "obj", "optional", "patch", "post", "put", "refused", "text", "unexpected",
]
