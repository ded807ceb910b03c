"""Changing only what one has seen (RFC 9110, section 13.1.1).

An answer about one thing carries an ETag. A client that sends it back as If-Match when it changes the thing gets 412
where somebody else has changed it meanwhile, and nothing is changed. Without that header the last one wins.
"""

from __future__ import annotations

import hashlib
from typing import Any

from django.utils.http import parse_etags
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework import status
from rest_framework.exceptions import APIException
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request

IF_MATCH = OpenApiParameter(
    "If-Match", OpenApiTypes.STR, OpenApiParameter.HEADER, description="Change it only if this is still its ETag."
)
ETAG = OpenApiParameter(
    "ETag",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    response=["200", "201"],
    description="Of what is told; for If-Match.",
)


class PreconditionFailed(APIException):
    status_code = status.HTTP_412_PRECONDITION_FAILED
    default_detail = (
        "Somebody has changed it since you read it, and your change was not made. Read it again, then decide anew."
    )
    default_code = "precondition_failed"


def etag_of(row: Any) -> str:
    """The ETag of a TimestampedModel's row: it changes whenever the row does."""
    return f'"{row.updated_at.timestamp() * 1_000_000:.0f}"'


def etag_of_facts(facts: dict[str, Any]) -> str:
    """The ETag of what an answer tells: it changes with any of it."""
    return f'"{hashlib.sha256(JSONRenderer().render(facts)).hexdigest()[:32]}"'


def refuse_stale(request: Request, etag: str) -> None:
    """Raises PreconditionFailed where If-Match names another ETag than this one of a row that is locked by now."""
    asked = request.headers.get("If-Match")
    if asked is not None and not {"*", etag} & set(parse_etags(asked)):
        raise PreconditionFailed
