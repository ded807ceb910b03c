"""Whom administrators let see a file, and why somebody sees it."""

from __future__ import annotations

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers, status
from rest_framework.exceptions import NotFound, PermissionDenied, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from access import policy
from access.api.authentication import acting
from access.api.serializers import not_past
from access.grantees import GranteeType
from access.grants import Grant, UnknownGranteeError, grant, grants_on, revoke_grants
from access.models import Source, User
from harvest.api.files.bulk import Change, grant_in_sets, revoke_in_sets
from harvest.api.files.explanation import Reason, Via, reasons
from harvest.api.files.filters import METADATA, FileConditions
from harvest.api.files.lookup import FILE_ID, LoggedIn, as_id, visible_file
from harvest.models import FileRecord
from streamweave.lib.rest.permissions import IsAdministrator
from streamweave.lib.rest.query import said_true
from streamweave.lib.rest.schema import problems
from streamweave.lib.rest.serializers import BigCountField, StrictSerializer


class GrantSerializer(StrictSerializer):
    id = serializers.UUIDField(read_only=True)
    file_id = serializers.UUIDField(read_only=True)
    grantee_type = serializers.ChoiceField(GranteeType.choices)
    grantee_id = serializers.UUIDField(help_text="The user's, group's or project's id.")
    granted_at = serializers.DateTimeField(read_only=True)
    granted_by = serializers.UUIDField(
        source="granted_by_id", read_only=True, allow_null=True, help_text="Null: the product itself."
    )
    expires_at = serializers.DateTimeField(
        required=False,
        allow_null=True,
        validators=[not_past],
        help_text="From then on it shows nothing; null: no end.",
    )
    source = serializers.ChoiceField(  # type: ignore[assignment]  # this one is a field
        Source.choices, read_only=True, help_text="How it came about."
    )
    name = serializers.CharField(read_only=True, help_text="The user's e-mail, or the group's or project's name.")


class FileGrantsView(APIView):
    @extend_schema(
        operation_id="list_file_grants",
        tags=["access"],
        description="The grants on one file, the oldest first.",
        parameters=[FILE_ID],
        responses={200: GrantSerializer(many=True), **problems(404)},
    )
    def get(self, request: Request, file_id: str) -> Response:
        return Response(GrantSerializer(grants_on([visible_file(request.user, file_id)]), many=True).data)

    @extend_schema(
        operation_id="create_file_grant",
        tags=["access"],
        description=(
            "Lets a user, a group or a project see the file. A grant that stands already, and as long, is answered "
            "with 200; one that ends sooner is prolonged."
        ),
        parameters=[FILE_ID],
        request=GrantSerializer,
        responses={201: GrantSerializer, 200: GrantSerializer, **problems(400, 404)},
    )
    def post(self, request: Request, file_id: str) -> Response:
        file = visible_file(request.user, file_id)
        wanted = checked_grant(request.data)
        try:
            added = grant([file], by=acting(request), **wanted)
        except UnknownGranteeError as error:
            raise unknown(error) from None
        answer = GrantSerializer(_standing(file, wanted)).data
        return Response(answer, status.HTTP_201_CREATED if added else status.HTTP_200_OK)


class FileGrantView(APIView):
    @extend_schema(
        operation_id="delete_file_grant",
        tags=["access"],
        parameters=[FILE_ID, OpenApiParameter("grant_id", OpenApiTypes.UUID, OpenApiParameter.PATH)],
        responses={204: None, **problems(404)},
    )
    def delete(self, request: Request, file_id: str, grant_id: str) -> Response:
        file, pk = visible_file(request.user, file_id), as_id(grant_id)
        found = [row.id for row in grants_on([file]) if row.id == pk]
        if not revoke_grants(found, by=acting(request)):
            raise NotFound("Grant not found")
        return Response(status=status.HTTP_204_NO_CONTENT)


# --------------------------------------------------------------------------------------------------- whole folders


class ChangeSerializer(serializers.Serializer[Change]):
    files = BigCountField(help_text="How many files meet the conditions.")
    changed = BigCountField(help_text="How many grants were, or on a dry run would be, added or taken back.")
    dry_run = serializers.BooleanField()


class GranteeSerializer(StrictSerializer):
    grantee_type = serializers.ChoiceField(GranteeType.choices)
    grantee_id = serializers.UUIDField()


DRY_RUN = OpenApiParameter("dry_run", bool, description="Only count what would change.")
OUR_PARAMETERS = frozenset({"dry_run", "format"})
GRANTEE = frozenset({"grantee_type", "grantee_id"})


class GrantsView(APIView):
    """Grants on many files at once: all those that meet the conditions of the query, of which there must be one. All or
    nothing, in one transaction."""

    @extend_schema(
        operation_id="grant_files",
        tags=["access"],
        parameters=[DRY_RUN, FileConditions, METADATA],
        request=GrantSerializer,
        responses={200: ChangeSerializer, **problems(400)},
    )
    def post(self, request: Request) -> Response:
        files = chosen_files(request, besides=OUR_PARAMETERS)
        wanted = checked_grant(request.data)
        try:
            change = grant_in_sets(files, by=acting(request), dry_run=said_true(request, "dry_run"), **wanted)
        except UnknownGranteeError as error:
            raise unknown(error) from None
        return Response(ChangeSerializer(change).data)

    @extend_schema(
        operation_id="revoke_files",
        tags=["access"],
        parameters=[GranteeSerializer, DRY_RUN, FileConditions, METADATA],
        responses={200: OpenApiResponse(ChangeSerializer), **problems(400)},
    )
    def delete(self, request: Request) -> Response:
        query = request.query_params
        grantee = GranteeSerializer(data={name: query[name] for name in GRANTEE if name in query})
        grantee.is_valid(raise_exception=True)
        files = chosen_files(request, besides=OUR_PARAMETERS | GRANTEE)
        change = revoke_in_sets(
            files, by=acting(request), dry_run=said_true(request, "dry_run"), **grantee.validated_data
        )
        return Response(ChangeSerializer(change).data)


def chosen_files(request: Request, *, besides: frozenset[str]) -> Any:
    """The files that meet the conditions of the query. Raises ValidationError, also where there are none."""
    conditions = FileConditions.read(request.query_params, besides=besides)
    if not conditions.are_any:
        raise ValidationError({"detail": ["Name at least one condition, so that not all files are meant."]})
    return conditions.narrow(FileRecord.objects.visible_to(request.user), request.user)


# ------------------------------------------------------------------------------------------------------------- why


class ReasonSerializer(serializers.Serializer[Reason]):
    via = serializers.ChoiceField(Via.choices)
    grant_id = serializers.UUIDField(allow_null=True, help_text="Null for an administrator, who needs none.")
    granted_at = serializers.DateTimeField(allow_null=True)
    expires_at = serializers.DateTimeField(allow_null=True, help_text="Null: no end.")
    instrument_id = serializers.UUIDField(allow_null=True, help_text="The grant covers all files of this instrument.")
    group_id = serializers.UUIDField(allow_null=True, help_text="The group through which the user is reached.")
    project_id = serializers.UUIDField(allow_null=True, help_text="The project through which the user is reached.")
    text = serializers.CharField(help_text="The same in words.")


class ExplanationSerializer(serializers.Serializer[Any]):
    file_id = serializers.UUIDField()
    user_id = serializers.UUIDField()
    visible = serializers.BooleanField()
    reasons = ReasonSerializer(many=True)


class ExplanationView(APIView):
    """Why a user sees a file. Everybody may ask about themselves, administrators about anybody."""

    permission_classes = (LoggedIn,)

    @extend_schema(
        operation_id="explain_file_access",
        tags=["access"],
        parameters=[FILE_ID, OpenApiParameter("user_id", OpenApiTypes.UUID, description="For administrators.")],
        responses={200: ExplanationSerializer, **problems(400, 404)},
    )
    def get(self, request: Request, file_id: str) -> Response:
        user = self._user(request)  # before the file, so that a refusal says nothing about it
        file = visible_file(request.user, file_id)
        visible = FileRecord.objects.visible_to(user).filter(pk=file.pk).exists()
        why = reasons(file, user) if visible else []
        told = {"file_id": file.pk, "user_id": user.pk, "visible": visible, "reasons": why}
        return Response(ExplanationSerializer(told).data)

    @staticmethod
    def _user(request: Request) -> User:
        asker = acting(request)
        asked = request.query_params.get("user_id")
        if asked is None:
            return asker
        pk = as_id(asked)
        if pk == asker.pk:
            return asker
        if not policy.is_admin(asker):
            raise PermissionDenied(IsAdministrator.message)
        user = None if pk is None else User.objects.filter(pk=pk).first()
        if user is None:
            raise ValidationError({"user_id": ["There is no such user."]})
        found: User = user
        return found


def checked_grant(data: Any) -> dict[str, Any]:
    """What GrantSerializer lets a client say of a grant. Raises ValidationError."""
    wanted = GrantSerializer(data=data)
    wanted.is_valid(raise_exception=True)
    return dict(wanted.validated_data)


def unknown(error: UnknownGranteeError) -> ValidationError:
    return ValidationError({"grantee_id": [str(error)]})


def _standing(file: FileRecord, wanted: dict[str, Any]) -> Grant:
    grantee = (wanted["grantee_type"], wanted["grantee_id"])
    return next(row for row in grants_on([file]) if (row.grantee_type, row.grantee_id) == grantee)
