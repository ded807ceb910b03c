"""What the OpenAPI generator is told by the settings."""

from __future__ import annotations

from typing import Any

from drf_spectacular.plumbing import get_lib_doc_excludes


def bases() -> list[type[Any]]:
    """The classes whose docstrings say how we build, and nothing to clients."""
    from streamweave.lib.rest.configured import ConfiguredSerializer, NamedSerializer
    from streamweave.lib.rest.query import QuerySerializer
    from streamweave.lib.rest.serializers import (
        BigCountField,
        BoundedModelSerializer,
        CountField,
        StrictModelSerializer,
        StrictSerializer,
    )

    ours = [StrictSerializer, BoundedModelSerializer, StrictModelSerializer, ConfiguredSerializer, NamedSerializer]
    return [*get_lib_doc_excludes(), *ours, CountField, BigCountField, QuerySerializer]
