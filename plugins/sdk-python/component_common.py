"""What every component needs of the classes that `componentize-py` generates."""

from typing import Any

from wit_world.imports import log as wit_log
from wit_world.imports import types

from .log import log


def clean(text: str) -> str:
    """Half of a surrogate pair, which JSON can hold, is no character: the contract's texts hold none."""
    return text.encode("utf-8", "replace").decode()


log.to(lambda level, message: wit_log.write(wit_log.Level[level.upper()], clean(message)))


def about_of(about: dict[str, Any], title: str | None, categories: list[str] | None) -> types.About:
    """What pyproject.toml and README.md say of the plugin, with what its module says."""
    return types.About(title=title or "", categories=list(categories or ["other"]), **about)
