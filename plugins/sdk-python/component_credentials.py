"""Exports credentials as the contract's `credential-schema`. Only a component can import this."""

from typing import Any

from componentize_py_types import Err
from wit_world.exports import credential_schema as wit

from .component_common import about_of
from .plugin import Credential, Credentials, Skill, credential_violation


def _wit_name(name: str) -> str:
    return name.upper().replace("-", "_")


def _field(key: str, field: Credential) -> wit.Field:
    return wit.Field(key=key, kind=wit.Kind[_wit_name(field.kind)], required=field.required, label=field.label,
                     help=field.help, placeholder=field.placeholder, scopes=list(field.scopes), oauth=None)


def schema(credentials: Credentials, skill: Skill | None, about: dict[str, Any]) -> type:
    name = credentials.skill or (skill.name if skill else "")
    title = credentials.title or (skill.title if skill else None)
    categories = credentials.categories or (skill.categories if skill else None)

    class CredentialSchema:
        def describe(self) -> wit.Schema:
            fields = [_field(key, field) for key, field in credentials.fields.items()]
            return wit.Schema(skill=name, about=about_of(about, title, categories), fields=fields)

        def check(self, key: str, value: str) -> None:
            violation = credential_violation(credentials, key, value)
            if violation is not None:
                raise Err(wit.Violation[_wit_name(violation)])

    return CredentialSchema
