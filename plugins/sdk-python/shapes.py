"""Types of parameters, outputs and settings: each gives its JSON Schema (2020-12) and reads a value."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .outcome import InvalidParams, Violation

Found = list[Violation]


@dataclass(frozen=True)
class Shape:
    """A type: its schema, how a value of it is read, and whether a property of it may be left out."""

    schema: dict[str, Any]
    read: Callable[[Any, str, Found], Any]
    is_optional: bool = False


def _schema(kind: str, **rules: Any) -> dict[str, Any]:
    return {"type": kind, **{name: rule for name, rule in rules.items() if rule is not None}}


def text(*, min_length: int = 0, max_length: int | None = None, pattern: str | None = None,
         format: str | None = None, description: str | None = None) -> Shape:
    def read(value: Any, pointer: str, found: Found) -> Any:
        if not isinstance(value, str):
            found.append(Violation(pointer, "must be a text"))
        elif len(value) < min_length:
            found.append(Violation(pointer, f"must have at least {min_length} characters"))
        elif max_length is not None and len(value) > max_length:
            found.append(Violation(pointer, f"must have at most {max_length} characters"))
        elif pattern is not None and not re.search(pattern, value):
            found.append(Violation(pointer, f"must match {pattern}"))
        return value

    return Shape(_schema("string", minLength=min_length or None, maxLength=max_length, pattern=pattern, format=format,
                         description=description), read)


def _numeric(kind: str, what: str, fits: Callable[[Any], bool], minimum: float | None, maximum: float | None,
             description: str | None) -> Shape:
    def read(value: Any, pointer: str, found: Found) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not fits(value):
            found.append(Violation(pointer, f"must be {what}"))
        elif minimum is not None and value < minimum:
            found.append(Violation(pointer, f"must be at least {minimum}"))
        elif maximum is not None and value > maximum:
            found.append(Violation(pointer, f"must be at most {maximum}"))
        return value

    return Shape(_schema(kind, minimum=minimum, maximum=maximum, description=description), read)


def integer(*, minimum: int | None = None, maximum: int | None = None, description: str | None = None) -> Shape:
    return _numeric("integer", "a whole number", lambda v: math.isfinite(v) and v == int(v), minimum, maximum, description)


def number(*, minimum: float | None = None, maximum: float | None = None, description: str | None = None) -> Shape:
    return _numeric("number", "a number", math.isfinite, minimum, maximum, description)


def flag(*, description: str | None = None) -> Shape:
    """True or false."""

    def read(value: Any, pointer: str, found: Found) -> Any:
        if not isinstance(value, bool):
            found.append(Violation(pointer, "must be true or false"))
        return value

    return Shape(_schema("boolean", description=description), read)


def choice(values: list[str], *, description: str | None = None) -> Shape:
    """One of these texts."""

    def read(value: Any, pointer: str, found: Found) -> Any:
        if value not in values:
            found.append(Violation(pointer, f"must be one of {', '.join(values)}"))
        return value

    return Shape(_schema("string", enum=values, description=description), read)


def list_of(item: Shape, *, min_items: int = 0, max_items: int | None = None, description: str | None = None) -> Shape:
    def read(value: Any, pointer: str, found: Found) -> Any:
        if not isinstance(value, list):
            found.append(Violation(pointer, "must be a list"))
            return value
        if len(value) < min_items:
            found.append(Violation(pointer, f"must have at least {min_items} items"))
        if max_items is not None and len(value) > max_items:
            found.append(Violation(pointer, f"must have at most {max_items} items"))
            return value
        return [item.read(one, f"{pointer}/{index}", found) for index, one in enumerate(value)]

    return Shape(_schema("array", items=item.schema, minItems=min_items or None, maxItems=max_items,
                         description=description), read)


def optional(shape: Shape) -> Shape:
    """A property that may be left out; it is then not among what was read."""
    return replace(shape, is_optional=True)


def anything(*, description: str | None = None) -> Shape:
    """Any JSON."""
    return Shape({} if description is None else {"description": description}, lambda value, pointer, found: value)


def obj(properties: Mapping[str, Shape], *, description: str | None = None) -> Shape:
    """With these properties and no others."""

    def read(value: Any, pointer: str, found: Found) -> Any:
        if not isinstance(value, dict):
            found.append(Violation(pointer, "must be an object"))
            return value
        for name in value:
            if name not in properties:
                found.append(Violation(f"{pointer}/{_token(name)}", "is not known"))
        result = {}
        for name, shape in properties.items():
            if name in value:
                result[name] = shape.read(value[name], f"{pointer}/{_token(name)}", found)
            elif not shape.is_optional:
                found.append(Violation(pointer, f"lacks `{name}`"))
        return result

    schema = _schema("object", description=description)
    schema["properties"] = {name: shape.schema for name, shape in properties.items()}
    schema["required"] = [name for name, shape in properties.items() if not shape.is_optional]
    schema["additionalProperties"] = False
    return Shape(schema, read)


def _token(name: str) -> str:
    """One step of a JSON Pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def read(shape: Shape, value: Any) -> Any:
    """The value as this type; fails with everything that is wrong with it."""
    found: Found = []
    result = shape.read(value, "", found)
    if found:
        raise InvalidParams(found)
    return result
