"""Pages by key: the next page begins after the last row of this one, so that page one thousand costs what one does.

The body is a plain array. `Link: <…>; rel="next"` (RFC 8288) leads on. `?limit=` asks for another size, `?ordering=`
for another order among the view's `ordering_fields`, `?count=true` for `X-Total-Count`, which counts no further than
COUNTED_AT_MOST.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.core.signing import BadSignature, Signer
from django.db.models import Q, QuerySet
from rest_framework.exceptions import ValidationError as BadRequest
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param

if TYPE_CHECKING:
    # The settings name this module, so that it is imported while rest_framework.views is.
    from rest_framework.views import APIView

COUNTED_AT_MOST = 10_000
OF_THE_PAGE = frozenset({"limit", "cursor", "count", "ordering", "format"})
"""Parameters of lists that are no conditions: they are read here, and `format` by the browsable API."""
SIGNER = Signer(salt="streamweave.cursor")
"""Cursors are signed: what a database cannot take, such as a null character, never gets near it in one."""


class KeysetPagination(BasePagination):
    """Views give `ordering` (a tuple ending in a unique field) and, where clients may choose, `ordering_fields`.

    A view may have `page(beyond, ordering, count)`, which knows a faster way than its queryset to the first `count`
    rows that meet the `Q`.
    """

    default_limit = 1000
    greatest_limit = 5000

    def paginate_queryset(self, queryset: Any, request: Request, view: APIView | None = None) -> list[Any]:
        self._request = request
        limit = self._limit(request)
        ordering = self._ordering(request, view)
        self._total = self._count(queryset) if request.query_params.get("count") == "true" else None
        cursor = request.query_params.get("cursor")
        beyond = self._beyond(queryset.model, ordering, cursor) if cursor else Q()
        page = getattr(view, "page", None)
        if page:
            rows = page(beyond, ordering, limit + 1)
        else:
            rows = list(queryset.filter(beyond).order_by(*ordering)[: limit + 1])
        self._next = self._cursor(rows[limit - 1], ordering) if len(rows) > limit else None
        return rows[:limit]

    def get_paginated_response(self, data: Any) -> Response:
        headers = {}
        if self._next:
            url = replace_query_param(self._request.build_absolute_uri(), "cursor", self._next)
            headers["Link"] = f'<{url}>; rel="next"'
        if self._total is not None:
            headers["X-Total-Count"] = str(self._total) if self._total <= COUNTED_AT_MOST else f"{COUNTED_AT_MOST}+"
        return Response(data, headers=headers)

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return schema

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        asked = [
            ("limit", {"type": "integer", "minimum": 1, "maximum": self.greatest_limit}, "How many at most."),
            ("cursor", {"type": "string"}, "Where to go on, from the Link header."),
            ("count", {"type": "string", "enum": ["true", "false"]}, "Whether to tell X-Total-Count."),
        ]
        if getattr(view, "ordering_fields", ()):
            names = [sign + name for name in view.ordering_fields for sign in ("", "-")]
            asked.append(("ordering", {"type": "string", "enum": names}, "The order; - for descending."))
        return [
            {"name": name, "required": False, "in": "query", "description": text, "schema": schema}
            for name, schema, text in asked
        ]

    def _limit(self, request: Request) -> int:
        text = request.query_params.get("limit", str(self.default_limit))
        if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= self.greatest_limit or len(text) > 9:
            raise BadRequest({"limit": [f"Give a whole number from 1 to {self.greatest_limit}."]})
        return int(text)

    def _ordering(self, request: Request, view: Any) -> tuple[str, ...]:
        default: tuple[str, ...] = view.ordering
        asked = request.query_params.get("ordering")
        if not asked:
            return default
        allowed: tuple[str, ...] = getattr(view, "ordering_fields", ())
        if asked.removeprefix("-") not in allowed:
            raise BadRequest({"ordering": [f"Choose one of: {', '.join(allowed)}; with - for descending."]})
        unique = default[-1].removeprefix("-")
        return (asked, f"-{unique}" if asked.startswith("-") else unique)

    @staticmethod
    def _count(queryset: QuerySet[Any]) -> int:
        return queryset.order_by()[: COUNTED_AT_MOST + 1].count()

    @staticmethod
    def _cursor(row: Any, ordering: tuple[str, ...]) -> str:
        values = [row._meta.get_field(name.removeprefix("-")).value_to_string(row) for name in ordering]
        return SIGNER.sign_object([list(ordering), values])

    @staticmethod
    def _beyond(model: Any, ordering: tuple[str, ...], cursor: str) -> Q:
        """What the rows after the cursor meet: for (a, b), a >= x and (a > x or b > y), which an index on (a, b)
        serves."""
        wrong = BadRequest({"cursor": ["This is no cursor of this list; begin without one."]})
        try:
            names, texts = SIGNER.unsign_object(cursor)
            if tuple(names) != ordering or len(texts) != len(ordering):
                raise wrong
            fields = [model._meta.get_field(name.removeprefix("-")) for name in ordering]
            values = [field.to_python(text) for field, text in zip(fields, texts, strict=True)]
        except (BadSignature, ValueError, TypeError, ValidationError):
            raise wrong from None
        condition = Q()
        for name, value in reversed(list(zip(ordering, values, strict=True))):
            field, further = name.removeprefix("-"), "lt" if name.startswith("-") else "gt"
            strictly = Q(**{f"{field}__{further}": value})
            condition = strictly if not condition else Q(**{f"{field}__{further}e": value}) & (strictly | condition)
        return condition
