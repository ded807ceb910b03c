"""The users, for administrators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import status, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from access import accounts, attempts, circles, registration
from access.api.answers import Answering, refusals
from access.api.auth import given
from access.api.authentication import acting
from access.api.resources import INCLUDE_DELETED, find, locked, tagged, writing
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
from streamweave.lib.rest.preconditions import ETAG, IF_MATCH
from streamweave.lib.rest.query import said_true
from streamweave.lib.rest.schema import problems

TAGS = ["users"]
DONE: dict[str, Any] = {"request": None, "parameters": [IF_MATCH, ETAG]}
"""What is said of an action on one user."""


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
        users = User.objects.all() if said_true(request, "include_deleted") else User.objects.alive()
        page = self.paginate_queryset(users)
        return self.get_paginated_response(UserSerializer(page, many=True).data)

    @described("get_user", "Get a user, deleted or not", UserSerializer, 404, parameters=[ETAG])
    def retrieve(self, request: Request, pk: str) -> Response:
        return _told(find(User.objects.all(), pk))

    @described(
        "update_user",
        "Change a user",
        UserSerializer,
        400,
        404,
        409,
        412,
        parameters=[IF_MATCH, ETAG],
        request=UserChangeSerializer,
        description="A new role, and deactivation, end every log-in of the user.",
    )
    def partial_update(self, request: Request, pk: str) -> Response:
        data, ip = request.data, attempts.address_of(request._request)
        with writing():
            user = locked(User.objects.alive(), pk, request)
            serializer = UserChangeSerializer(user, data=data, partial=True)
            serializer.is_valid(raise_exception=True)
            user = accounts.change_user(user, by=acting(request), ip=ip, **serializer.validated_data)
        return _told(user)

    @described("delete_user", "Delete a user, who can be restored", None, 404, 409, 412, parameters=[IF_MATCH])
    def destroy(self, request: Request, pk: str) -> Response:
        self._do(accounts.delete_users, User.objects.alive(), pk)
        return Response(status=status.HTTP_204_NO_CONTENT)

    @described("restore_user", "Restore a deleted user", UserSerializer, 404, 409, 412, **DONE)
    def restore(self, request: Request, pk: str) -> Response:
        return self._do(accounts.restore_users, User.objects.all(), pk)

    @described("deactivate_user", "Shut a user out", UserSerializer, 404, 409, 412, **DONE)
    def deactivate(self, request: Request, pk: str) -> Response:
        return self._do(accounts.deactivate_users, User.objects.alive(), pk)

    @described("activate_user", "Let a user in again", UserSerializer, 404, 409, 412, **DONE)
    def activate(self, request: Request, pk: str) -> Response:
        return self._do(accounts.activate_users, User.objects.alive(), pk)

    @described("list_groups_of_user", "List a user's groups", GroupSerializer(many=True), 404, filters=False)
    def groups(self, request: Request, pk: str) -> Response:
        return Response(GroupSerializer(circles.groups_of(find(User.objects.all(), pk)), many=True).data)

    @described(
        "list_projects_of_user",
        "List the projects of which a user is a member himself",
        ProjectSerializer(many=True),
        404,
        filters=False,
    )
    def projects(self, request: Request, pk: str) -> Response:
        return Response(ProjectSerializer(circles.direct_projects_of(find(User.objects.all(), pk)), many=True).data)

    @extend_schema(
        operation_id="invite_user",
        summary="Invite somebody to register",
        request=AddressSerializer,
        responses={201: InvitationSerializer, **problems(400), 503: refusals(503)[503]},
        tags=TAGS,
    )
    def invite(self, request: Request) -> Response:
        email = given(AddressSerializer, request)["email"]
        code = registration.invite(email, by=acting(request), ip=attempts.address_of(request._request))
        send_mail.delay(Mail.INVITE, email)
        return Response({"email": email, "invitation": code}, status.HTTP_201_CREATED)

    def _do(self, change: Callable[..., int], users: QuerySet[Any], pk: str) -> Response:
        with writing():
            user = locked(users, pk, self.request)
            ip = attempts.address_of(self.request._request)
            change(User.objects.filter(pk=user.pk), by=acting(self.request), ip=ip)
            user.refresh_from_db()
        return _told(user)


def _told(user: User) -> Response:
    return tagged(UserSerializer(user).data, user)
