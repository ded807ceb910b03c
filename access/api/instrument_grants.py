"""Who may see all files of an instrument, those to come as well."""

from __future__ import annotations

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers, status
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from access.api.auth import given
from access.api.authentication import acting
from access.api.resources import find
from access.api.serializers import END, not_past
from access.grantees import GranteeType
from access.grants import UnknownGranteeError, grant_instrument, grants_on_instruments, revoke_grants
from access.models import FileUserObjectPermission, Source
from streamweave.lib.rest.schema import problems
from streamweave.lib.rest.serializers import StrictSerializer

TAGS = ["access"]
ID = OpenApiParameter("pk", OpenApiTypes.UUID, OpenApiParameter.PATH, description="The instrument's id.")
INSTRUMENTS: Any = FileUserObjectPermission._meta.get_field("instrument").remote_field.model._default_manager
"""Those of harvest, which this app does not import."""


class InstrumentGrantSerializer(StrictSerializer):
    """A grant on all files of an instrument."""

    id = serializers.UUIDField(read_only=True)
    instrument_id = serializers.UUIDField(read_only=True)
    grantee_type = serializers.ChoiceField(GranteeType.choices)
    grantee_id = serializers.UUIDField(help_text="The user's, group's or project's id.")
    granted_at = serializers.DateTimeField(read_only=True)
    granted_by = serializers.UUIDField(source="granted_by_id", read_only=True, allow_null=True)
    source = serializers.ChoiceField(Source.choices, read_only=True)  # type: ignore[assignment]  # this one is a field
    name = serializers.CharField(read_only=True, help_text="The user's e-mail, or the group's or project's name.")
    expires_at = serializers.DateTimeField(validators=[not_past], **END)


class InstrumentGrantsView(APIView):
    @extend_schema(
        operation_id="list_instrument_grants",
        summary="List who may see all files of an instrument",
        parameters=[ID],
        responses={200: InstrumentGrantSerializer(many=True), **problems(404)},
        tags=TAGS,
    )
    def get(self, request: Request, pk: str) -> Response:
        rows = grants_on_instruments([_instrument(pk)])
        return Response(InstrumentGrantSerializer(rows, many=True).data)

    @extend_schema(
        operation_id="grant_instrument",
        summary="Let a user, group or project see all files of an instrument",
        description="Those it has and those to come. A grant that stands, and lasts as long, is answered with 200.",
        parameters=[ID],
        request=InstrumentGrantSerializer,
        responses={201: InstrumentGrantSerializer, 200: InstrumentGrantSerializer, **problems(400, 404)},
        tags=TAGS,
    )
    def post(self, request: Request, pk: str) -> Response:
        instrument, wanted = _instrument(pk), given(InstrumentGrantSerializer, request)
        try:
            added = grant_instrument(instrument, by=acting(request), **wanted)
        except UnknownGranteeError as error:
            raise ValidationError({"grantee_id": [str(error)]}) from None
        grantee = (wanted["grantee_type"], wanted["grantee_id"])
        row = next(r for r in grants_on_instruments([instrument]) if (r.grantee_type, r.grantee_id) == grantee)
        answer = InstrumentGrantSerializer(row).data
        return Response(answer, status.HTTP_201_CREATED if added else status.HTTP_200_OK)


class InstrumentGrantView(APIView):
    @extend_schema(
        operation_id="revoke_instrument_grant",
        summary="Take a grant on all files of an instrument back",
        parameters=[ID, OpenApiParameter("grant_id", OpenApiTypes.UUID, OpenApiParameter.PATH)],
        responses={204: None, **problems(404)},
        tags=TAGS,
    )
    def delete(self, request: Request, pk: str, grant_id: str) -> Response:
        found = [row.id for row in grants_on_instruments([_instrument(pk)]) if str(row.id) == grant_id.lower()]
        if not revoke_grants(found, by=acting(request)):
            raise NotFound("Grant not found")
        return Response(status=status.HTTP_204_NO_CONTENT)


def _instrument(pk: str) -> Any:
    """Deleted or not, for the files of one that is deleted stay. Raises NotFound."""
    return find(INSTRUMENTS.all(), pk)
