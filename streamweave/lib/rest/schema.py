"""How the OpenAPI description tells of what all answers have in common."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiResponse
from rest_framework import serializers


class ProblemSerializer(serializers.Serializer[Any]):
    """What is wrong, in a sentence."""

    detail = serializers.CharField()


_FIELD_ERRORS = {
    "type": "object",
    "description": "The messages of each field that is wrong; what concerns no single field is under `detail`.",
    "additionalProperties": {},
}

_MEANINGS = {
    401: "Not logged in.",
    403: "Not an administrator.",
    404: "There is none, or it is deleted.",
    409: "It is not possible as things stand.",
    412: "It was changed since the client read it.",
    503: "Something that is needed is out of reach for now.",
}


def problems(*statuses: int) -> dict[int, Any]:
    """The entries of `responses` for what may go wrong: 401 and 403, which every administrator's view has, and
    `statuses`."""
    entries: dict[int, Any] = {}
    for status in sorted({401, 403, *statuses}):
        if status == 400:
            entries[status] = OpenApiResponse(_FIELD_ERRORS, "Fields are wrong.")
        else:
            entries[status] = OpenApiResponse(ProblemSerializer, _MEANINGS[status])
    return entries
