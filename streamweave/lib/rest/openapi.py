"""What the OpenAPI generator is told by the settings."""

from __future__ import annotations

from typing import Any

from drf_spectacular.plumbing import get_lib_doc_excludes


def bases() -> list[type[Any]]:
    """The classes whose docstrings say how we build, and nothing to clients."""
    from streamweave.lib.rest.configured import ConfiguredSerializer, NamedSerializer
    from streamweave.lib.rest.serializers import StrictModelSerializer, StrictSerializer

    ours = [StrictSerializer, StrictModelSerializer, ConfiguredSerializer, NamedSerializer]
    return [*get_lib_doc_excludes(), *ours]


DATABASE_LIMITS = frozenset({2**15 - 1, 2**31 - 1, 2**63 - 1, -(2**15), -(2**31), -(2**63)})


def without_database_limits(result: Any, **kwargs: Any) -> Any:
    """The schema without the ends of integer columns, which differ between SQLite and PostgreSQL."""
    match result:
        case dict():
            return {
                name: without_database_limits(value)
                for name, value in result.items()
                if not (name in ("maximum", "minimum") and value in DATABASE_LIMITS)
                and not (name == "format" and value == "int64")
            }
        case list():
            return [without_database_limits(value) for value in result]
    return result
