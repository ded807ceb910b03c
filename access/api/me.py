"""What is one's own: oneself, one's groups and projects, one's API tokens."""

from __future__ import annotations

import uuid
from typing import Any

from django.db.models import QuerySet
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from drf_spectacular.utils import extend_schema
from rest_framework import generics, status
from rest_framework.exceptions import NotFound, PermissionDenied
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from access import accounts, api_tokens, attempts
from access.api.answers import Answering, refusals
from access.api.auth import AccountView, given
from access.api.authentication import acting
from access.api.resources import locked, tagged, writing
from access.api.serializers import (
    ApiTokenSerializer,
    GroupSerializer,
    MadeApiTokenSerializer,
    MeSerializer,
    NewApiTokenSerializer,
    OwnChangeSerializer,
    ProjectSerializer,
    UserSerializer,
)
from access.circles import groups_of, projects_of
from access.models import ApiToken, User
from streamweave.lib.rest.preconditions import ETAG, IF_MATCH
from streamweave.lib.rest.schema import problems


class MeView(AccountView):
    @extend_schema(
        operation_id="get_me",
        summary="Get oneself, with one's groups and projects",
        responses={200: MeSerializer, 401: problems()[401]},
        tags=["me"],
    )
    def get(self, request: Request) -> Response:
        user = acting(request)
        mine = {
            "groups": GroupSerializer(groups_of(user), many=True).data,
            "projects": ProjectSerializer(projects_of(user), many=True).data,
        }
        return Response(UserSerializer(user).data | mine)


@method_decorator(sensitive_post_parameters("password", "current_password"), name="dispatch")
class UsersMeView(AccountView):
    @extend_schema(
        operation_id="get_own_user",
        summary="Get oneself",
        parameters=[ETAG],
        responses={200: UserSerializer, 401: problems()[401]},
        tags=["me"],
    )
    def get(self, request: Request) -> Response:
        user = acting(request)
        return tagged(UserSerializer(user).data, user)

    @extend_schema(
        operation_id="update_own_user",
        summary="Change one's address or password",
        description="A new password ends every log-in of the user. A new address has to be confirmed.",
        parameters=[IF_MATCH, ETAG],
        request=OwnChangeSerializer,
        responses={200: UserSerializer, **problems(400, 409, 412), **refusals(429)},
        tags=["me"],
    )
    @sensitive_variables("told")
    def patch(self, request: Request) -> Response:
        told = given(OwnChangeSerializer, request)
        user = acting(request)
        attempt = attempts.begin(attempts.Purpose.LOGIN, account=user.email, request=request._request)
        with writing():
            locked(User.objects.all(), str(user.pk), request)
            user = accounts.change_own(user, **told, ip=attempts.address_of(request._request))
        attempt.forget()
        return tagged(UserSerializer(user).data, user)


@extend_schema(tags=["tokens"])
class ApiTokensView(Answering, generics.ListAPIView[ApiToken]):
    serializer_class = ApiTokenSerializer
    permission_classes = (IsAuthenticated,)
    queryset = ApiToken.objects.none()
    ordering = ("created_at", "id")

    def get_queryset(self) -> QuerySet[Any]:
        user = acting(self.request)
        return ApiToken.objects.filter(user=user, revoked_at=None, token_version=user.token_version)

    @extend_schema(
        operation_id="list_api_tokens",
        summary="List one's API tokens",
        responses={200: ApiTokenSerializer(many=True), 401: problems()[401], 400: problems(400)[400]},
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    @extend_schema(
        operation_id="create_api_token",
        summary="Make an API token",
        description="Its text is in this answer and nowhere else. It ends with its time, when it is revoked, and with"
        " whatever ends one's log-ins everywhere: a new password or role, deactivation, `/auth/logout-everywhere`.",
        request=NewApiTokenSerializer,
        responses={201: MadeApiTokenSerializer, **problems(400)},
    )
    def post(self, request: Request) -> Response:
        _refuse_tokens(request)
        told = given(NewApiTokenSerializer, request)
        row, text = api_tokens.make(user=acting(request), **told, ip=attempts.address_of(request._request))
        return Response({**ApiTokenSerializer(row).data, "token": text}, status.HTTP_201_CREATED)


class ApiTokenView(AccountView):
    @extend_schema(
        operation_id="revoke_api_token",
        summary="Revoke an API token",
        responses={204: None, **problems(404)},
        tags=["tokens"],
    )
    def delete(self, request: Request, pk: str) -> Response:
        _refuse_tokens(request)
        try:
            known = api_tokens.revoke(uuid.UUID(pk), of=acting(request), ip=attempts.address_of(request._request))
        except ValueError:
            known = False
        if not known:
            raise NotFound("API token not found")
        return Response(status=status.HTTP_204_NO_CONTENT)


def _refuse_tokens(request: Request) -> None:
    """Whoever has stolen a token shall not make himself more of them."""
    if isinstance(request.auth, ApiToken):
        raise PermissionDenied("An API token cannot manage API tokens. Log in for that.")
