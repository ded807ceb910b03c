"""The users, for administrators."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status, viewsets
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from access import accounts, attempts, circles, registration
from access.api.answers import Answering, refusals
from access.api.auth import asking, given
from access.api.resources import INCLUDE_DELETED, asked_for
from access.api.serializers import (
    AddressSerializer,
    GroupSerializer,
    InvitationSerializer,
    ProjectSerializer,
    UserChangeSerializer,
    UserSerializer,
)
from access.mails import Mail
from access.models import User
from access.tasks import send_mail
from streamweave.lib.rest.schema import problems

TAGS = ["users"]
ID = OpenApiParameter("id", str, OpenApiParameter.PATH, description="The user's id.")


def described(operation: str, summary: str, answer: Any, *statuses: int, **more: Any) -> Any:
    responses = {status.HTTP_204_NO_CONTENT: None} if answer is None else {status.HTTP_200_OK: answer}
    more.setdefault("parameters", [])
    return extend_schema(
        operation_id=operation, summary=summary, responses={**responses, **problems(*statuses)}, tags=TAGS, **more
    )


class UserViewSet(Answering, viewsets.GenericViewSet[User]):
    queryset = User.objects.all()
    serializer_class = UserSerializer
    ordering = ("created_at", "id")

    @described("list_users", "List users", UserSerializer(many=True), 400, parameters=[INCLUDE_DELETED])
    def list(self, request: Request) -> Response:
        users = User.objects.all() if asked_for(request, "include_deleted") else User.objects.alive()
        page = self.paginate_queryset(users)
        return self.get_paginated_response(UserSerializer(page, many=True).data)

    @described("get_user", "Get a user, deleted or not", UserSerializer, 404)
    def retrieve(self, request: Request, pk: str) -> Response:
        return Response(UserSerializer(_find(pk)).data)

    @described(
        "update_user",
        "Change a user",
        UserSerializer,
        400,
        404,
        409,
        request=UserChangeSerializer,
        description="A new role, and deactivation, end every log-in of the user.",
    )
    def partial_update(self, request: Request, pk: str) -> Response:
        user = _find(pk, User.objects.alive())
        serializer = UserChangeSerializer(user, data=request.data, partial=True)
        serializer.is_valid(raise_exception=True)
        values, ip = serializer.validated_data, attempts.address_of(request._request)
        return Response(UserSerializer(accounts.change_user(user, by=asking(request), ip=ip, **values)).data)

    @described("delete_user", "Delete a user, who can be restored", None, 404, 409)
    def destroy(self, request: Request, pk: str) -> Response:
        self._do(accounts.delete_users, _find(pk, User.objects.alive()))
        return Response(status=status.HTTP_204_NO_CONTENT)

    @described("restore_user", "Restore a deleted user", UserSerializer, 404, request=None)
    def restore(self, request: Request, pk: str) -> Response:
        return self._do(accounts.restore_users, _find(pk))

    @described("deactivate_user", "Shut a user out", UserSerializer, 404, 409, request=None)
    def deactivate(self, request: Request, pk: str) -> Response:
        return self._do(accounts.deactivate_users, _find(pk, User.objects.alive()))

    @described("activate_user", "Let a user in again", UserSerializer, 404, request=None)
    def activate(self, request: Request, pk: str) -> Response:
        return self._do(accounts.activate_users, _find(pk, User.objects.alive()))

    @described("list_groups_of_user", "List a user's groups", GroupSerializer(many=True), 404, filters=False)
    def groups(self, request: Request, pk: str) -> Response:
        return Response(GroupSerializer(circles.groups_of(_find(pk)), many=True).data)

    @described(
        "list_projects_of_user",
        "List the projects of which a user is a member himself",
        ProjectSerializer(many=True),
        404,
        filters=False,
    )
    def projects(self, request: Request, pk: str) -> Response:
        return Response(ProjectSerializer(circles.direct_projects_of(_find(pk)), many=True).data)

    @extend_schema(
        operation_id="invite_user",
        summary="Invite somebody to register",
        request=AddressSerializer,
        responses={201: InvitationSerializer, **problems(400), 503: refusals(503)[503]},
        tags=TAGS,
    )
    def invite(self, request: Request) -> Response:
        email = given(AddressSerializer, request)["email"]
        code = registration.invite(email, by=asking(request), ip=attempts.address_of(request._request))
        send_mail.delay(Mail.INVITE, email)
        return Response({"email": email, "invitation": code}, status.HTTP_201_CREATED)

    def _do(self, change: Callable[..., int], user: User) -> Response:
        change(User.objects.filter(pk=user.pk), by=asking(self.request))
        return Response(UserSerializer(User.objects.get(pk=user.pk)).data)


def _find(pk: str, users: Any = User.objects) -> User:
    """Raises NotFound, the same for what is no id at all."""
    try:
        return users.get(pk=uuid.UUID(pk))
    except (ValueError, User.DoesNotExist):
        raise NotFound("User not found") from None
