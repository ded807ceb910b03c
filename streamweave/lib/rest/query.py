"""What `?…` asks: each name once, and none that nobody knows."""

from __future__ import annotations

from typing import Any

from django.http import QueryDict
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from streamweave.lib.rest.pagination import OF_THE_PAGE
from streamweave.lib.rest.serializers import StrictSerializer


def said_once(query: QueryDict, *, besides: frozenset[str] = OF_THE_PAGE) -> dict[str, str]:
    """The parameters but for `besides`, which are somebody else's. Raises ValidationError with those given twice."""
    asked = {name: query.getlist(name) for name in query if name not in besides}
    if repeated := [name for name, values in asked.items() if len(values) > 1]:
        raise ValidationError({name: ["Give it once."] for name in repeated})
    return {name: values[0] for name, values in asked.items()}


def said_true(request: Request, name: str) -> bool:
    """Whether the query says `name=true`. Raises ValidationError where it says neither that nor `false`."""
    said = request.query_params.get(name, "false").lower()
    if said not in ("true", "false"):
        raise ValidationError({name: ["Say true or false."]})
    return said == "true"


class QuerySerializer(StrictSerializer):
    """The parameters of a list, as its fields."""

    @classmethod
    def read(cls, request: Request) -> dict[str, Any]:
        """What the query of `request` asks. Raises ValidationError."""
        asked = cls(data=said_once(request.query_params))
        asked.is_valid(raise_exception=True)
        return dict(asked.validated_data)
