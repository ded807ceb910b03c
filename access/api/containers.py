"""Groups and projects, and their members, for administrators."""

from __future__ import annotations

import uuid
from typing import Any

from django.db.models import Q
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import serializers, status
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from access import members
from access.api.answers import Answering
from access.api.auth import given
from access.api.authentication import acting
from access.api.resources import ConfiguredViewSet, described
from access.api.serializers import (
    GroupMemberSerializer,
    GroupSerializer,
    NewGroupMemberSerializer,
    NewProjectMemberSerializer,
    ProjectMemberSerializer,
    ProjectSerializer,
)
from access.models import Group, Project, User
from streamweave.lib.rest.errors import Conflict
from streamweave.lib.rest.schema import problems


def members_described(one: str, told: Any, asked: Any) -> Any:
    """The OpenAPI descriptions of the three actions about members, as a decorator of the class."""
    tags = [f"{one}s"]
    return extend_schema_view(
        members=extend_schema(
            operation_id=f"list_{one}_members",
            tags=tags,
            summary=f"List a {one}'s members, in the order in which they joined",
            responses={200: told(many=True), **problems(400, 404)},
        ),
        add_member=extend_schema(
            operation_id=f"add_{one}_member",
            tags=tags,
            summary=f"Add a member to a {one}",
            request=asked,
            responses={201: told, **problems(400, 404, 409)},
        ),
        remove_member=extend_schema(
            operation_id=f"remove_{one}_member",
            tags=tags,
            summary=f"Remove a member from a {one}",
            responses={204: None, **problems(404)},
        ),
    )


class ContainerViewSet(Answering, ConfiguredViewSet):
    """What groups and projects have in common."""

    member_serializer: type[serializers.BaseSerializer[Any]]

    def check_restorable(self, row: Group | Project) -> None:
        if type(row).objects.alive().filter(name__iexact=row.name).exclude(pk=row.pk).exists():
            raise Conflict(f"Another {row._meta.verbose_name} is called “{row.name}” now. Rename that one first.")

    @action(detail=True)
    def members(self, request: Request, pk: str) -> Response:
        rows = self._memberships(self.found(pk)).exclude(user__deleted_at__isnull=False)
        page = self.paginate_queryset(rows)
        return self.get_paginated_response(self.member_serializer(page, many=True).data)

    @action(detail=True, methods=["post"])
    def add_member(self, request: Request, pk: str) -> Response:
        container = self.found(pk)
        one = self.asked_member()
        if not members.add_members(to=container, members=[one], by=acting(request)):
            raise Conflict(f"{one} is a member already.")
        row = self._memberships(container).get(**{type(one).__name__.lower(): one})
        return Response(self.member_serializer(row).data, status.HTTP_201_CREATED)

    @action(detail=True, methods=["delete"])
    def remove_member(self, request: Request, pk: str, member_id: str) -> Response:
        container = self.found(pk)
        for row in self._memberships(container).filter(self.is_member(member_id)):
            members.remove_members(of=container, members=[row.user or row.group], by=acting(request))
            return Response(status=status.HTTP_204_NO_CONTENT)
        raise NotFound("Member not found")

    # Groups and projects each say these two for themselves.

    def asked_member(self) -> User | Group:
        """Whom the request names. Raises ValidationError if there is nobody of that id."""
        raise NotImplementedError

    def is_member(self, member_id: str) -> Q:
        """The condition on memberships. Raises NotFound if it is no id."""
        raise NotImplementedError

    def _memberships(self, container: Any) -> Any:
        return container.memberships.select_related("user")


@members_described("group", GroupMemberSerializer, NewGroupMemberSerializer)
@described("group", "groups", GroupSerializer)
class GroupViewSet(ContainerViewSet):
    queryset = Group.objects.all()
    serializer_class = GroupSerializer
    member_serializer = GroupMemberSerializer

    def asked_member(self) -> User | Group:
        user_id = given(NewGroupMemberSerializer, self.request)["user_id"]
        return _one(User, user_id, "user_id")

    def is_member(self, member_id: str) -> Q:
        return Q(user=_as_id(member_id))


@members_described("project", ProjectMemberSerializer, NewProjectMemberSerializer)
@described("project", "projects", ProjectSerializer)
class ProjectViewSet(ContainerViewSet):
    queryset = Project.objects.all()
    serializer_class = ProjectSerializer
    member_serializer = ProjectMemberSerializer

    def asked_member(self) -> User | Group:
        told = given(NewProjectMemberSerializer, self.request)
        return _one(User if told["member_type"] == "user" else Group, told["member_id"], "member_id")

    def is_member(self, member_id: str) -> Q:
        return Q(user=_as_id(member_id)) | Q(group=_as_id(member_id))


def _one(model: type[User] | type[Group], pk: uuid.UUID, field: str) -> User | Group:
    one = model.objects.alive().filter(pk=pk).first()
    if one is None:
        raise ValidationError({field: [f"There is no {model._meta.verbose_name} with this id, or it is deleted."]})
    return one


def _as_id(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise NotFound("Member not found") from None
