"""The groups and projects that a user is in."""

from __future__ import annotations

from django.db.models import Q, QuerySet

from access.models import Group, Project, User


def groups_of(user: User) -> QuerySet[Group]:
    """His groups, in the order in which he joined them."""
    return Group.objects.alive().filter(memberships__user=user).order_by("memberships__created_at", "id")


def direct_projects_of(user: User) -> QuerySet[Project]:
    """The projects of which he is a member himself, in the order in which he joined them."""
    return Project.objects.alive().filter(memberships__user=user).order_by("memberships__created_at", "id")


def projects_of(user: User) -> QuerySet[Project]:
    """All his projects by name: those of which he is a member himself, and those of his groups."""
    directly = Q(memberships__user=user)
    through_group = Q(memberships__group__memberships__user=user, memberships__group__deleted_at=None)
    ids = Project.objects.filter(directly | through_group).order_by().values("pk")
    return Project.objects.alive().filter(pk__in=ids).order_by("name", "id")
