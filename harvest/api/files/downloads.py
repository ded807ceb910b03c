"""Downloading a file: what HTTP asks, and what must go along with bytes that nobody vouches for."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Any

from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils.cache import get_conditional_response, patch_vary_headers
from django.utils.http import content_disposition_header
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from access.api.authentication import acting
from access.attempts import address_of
from access.audit import record
from harvest.api.files.lookup import FILE_ID, LoggedIn, open_problems, visible_file
from harvest.api.files.ranges import UnsatisfiableRangeError, span_of
from harvest.api.files.serving import CopiesFailedError, NoCopyError, copies_of, deliver, newest_version
from harvest.models import FileRecord, FileVersion
from streamweave.lib.rest.errors import Conflict, Unavailable
from streamweave.lib.rest.serializers import StrictSerializer

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Control characters, and those that turn the direction of a text and so can hide the end of a name."""


class AnythingAccepted(BaseContentNegotiation):
    """The bytes are what they are, whatever types a client would rather have; problems are told in JSON."""

    def select_parser(self, request: Any, parsers: Any) -> Any:
        return parsers[0]

    def select_renderer(
        self, request: Any, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        first = next(iter(renderers))
        return first, first.media_type or ""


class DownloadAsked(StrictSerializer):
    version = serializers.IntegerField(
        required=False, min_value=1, max_value=2**31 - 1, help_text="The newest that is stored, if it is left out."
    )


_BYTES = OpenApiResponse(OpenApiTypes.BINARY)


class DownloadView(APIView):
    """The content of a file, from the newest verified copy that can be read."""

    permission_classes = (LoggedIn,)
    renderer_classes = (JSONRenderer,)
    content_negotiation_class = AnythingAccepted

    @extend_schema(
        operation_id="download_file",
        tags=["files"],
        parameters=[
            FILE_ID,
            DownloadAsked,
            OpenApiParameter("Range", str, OpenApiParameter.HEADER, description="One range of bytes (RFC 9110)."),
        ],
        responses={
            (200, "application/octet-stream"): _BYTES,
            (206, "application/octet-stream"): _BYTES,
            304: OpenApiResponse(description="Not changed since the client read it."),
            412: OpenApiResponse(description="It is not what If-Match names."),
            416: OpenApiResponse(description="The range begins behind the end."),
            **open_problems(400, 404, 409, 503),
        },
    )
    def get(self, request: Request, file_id: str) -> HttpResponseBase:
        asked = DownloadAsked(data=request.query_params.dict())
        asked.is_valid(raise_exception=True)
        file = visible_file(request.user, file_id)
        version = newest_version(file, asked.validated_data.get("version"))
        if version is None:
            raise NotFound("There is no such version of this file.")
        try:
            return _answer(request, file, version)
        except NoCopyError as error:
            raise Conflict(str(error)) from None
        except CopiesFailedError:
            raise Unavailable("None of its copies can be read right now; try again later.") from None


def _answer(request: Request, file: FileRecord, version: FileVersion) -> HttpResponseBase:
    """Raises NoCopyError, CopiesFailedError."""
    copies = copies_of(version)
    etag = f'"{version.sha256}"'
    conditional = get_conditional_response(request._request, etag=etag)
    if conditional is not None:
        return _dressed(conditional, file, version, etag)
    try:
        span = span_of(_applicable_range(request, etag), version.size_bytes)
    except UnsatisfiableRangeError:
        refused = HttpResponse(status=416, headers={"Content-Range": f"bytes */{version.size_bytes}"})
        return _dressed(refused, file, version, etag)
    sent = range(version.size_bytes) if span is None else span
    response: HttpResponseBase
    if request.method == "HEAD":
        response = HttpResponse()
    else:
        response = StreamingHttpResponse(deliver(version, copies, sent), status=200 if span is None else 206)
        _record(request, file, version, span)
    response["Content-Length"] = str(len(sent))
    if span is not None:
        response["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{version.size_bytes}"
    return _dressed(response, file, version, etag)


def _applicable_range(request: Request, etag: str) -> str | None:
    """The Range header, unless it does not count: on a HEAD, and where If-Range names another representation than this
    one (RFC 9110, sections 14.2 and 13.1.5; a date never names it, for no Last-Modified is told)."""
    if request.method != "GET" or request.headers.get("If-Range", etag).strip() != etag:
        return None
    return request.headers.get("Range")


def _dressed(response: HttpResponseBase, file: FileRecord, version: FileVersion, etag: str) -> HttpResponseBase:
    """With what says what it is, and what keeps a browser from running it as a page of ours."""
    response["ETag"] = etag
    response["Accept-Ranges"] = "bytes"
    response["Cache-Control"] = "private, no-cache"
    response["Content-Security-Policy"] = "sandbox; default-src 'none'"
    response["X-Content-Type-Options"] = "nosniff"
    patch_vary_headers(response, ("Authorization", "Cookie"))
    if response.status_code in (200, 206):
        response["Content-Type"] = "application/octet-stream"
        response["Content-Disposition"] = content_disposition_header(True, _UNPRINTABLE.sub("_", file.filename)) or ""
        digest = base64.b64encode(bytes.fromhex(version.sha256 or "")).decode()
        response["Repr-Digest"] = f"sha-256=:{digest}:"  # RFC 9530
    return response


def _record(request: Request, file: FileRecord, version: FileVersion, span: range | None) -> None:
    part = None if span is None else f"{span.start}-{span.stop - 1}"
    detail = {"version": version.number, "range": part, "sha256": version.sha256}
    record("file.downloaded", by=acting(request), on=file, detail=detail, ip=address_of(request._request))
