"""The routes of the product, read from its URL configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.urls import URLPattern, URLResolver, get_resolver

ID_IN_PATH = re.compile(r"<\w+:(\w+)>")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True, order=True)
class Route:
    """A path as the URL configuration writes it, such as api/files/<str:file_id>, with one of its methods."""

    path: str
    method: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def routes() -> list[Route]:
    """Every path but those of the admin pages, with every method that it answers."""
    return sorted(
        Route(path, method)
        for path, view in _paths(get_resolver().url_patterns, "")
        if not path.startswith("admin/")
        for method in _methods(view)
    )


def _paths(patterns: list[Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for pattern in patterns:
        path = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from _paths(pattern.url_patterns, path)
        elif isinstance(pattern, URLPattern):
            yield path, pattern.callback


def _methods(view: Any) -> list[str]:
    if actions := getattr(view, "actions", None):  # a DRF viewset
        return [method.upper() for method in actions if method.upper() in METHODS]
    kind = getattr(view, "cls", None)
    if kind is None:  # a page: a plain function or view of Django, which does the same whatever the method is
        return ["GET"]
    return [method for method in METHODS if hasattr(kind, method.lower()) and method.lower() in kind.http_method_names]
