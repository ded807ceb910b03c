"""The effective members that follow from memberships.

Grants know users and `auth.Group`s, so each Group and each Project owns one `auth.Group`. It lists the *effective*
members: a Group's users; a Project's users and those of its groups. Who is deactivated or deleted is no effective
member, and neither a deleted group nor a deleted project has any. Whatever changes one of these facts through a model,
a queryset or the admin rewrites the lists in the same transaction. Raw SQL does not; `find_drift` finds what it broke,
and `sync_effective_members` without arguments repairs it.

All is asked of `auth.Group` and by the names of its relations: users, groups and projects are built upon this module.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from typing import Any

from django.contrib.auth.models import Group as AuthGroup
from django.db import connection, models, transaction
from django.db.models import Q

SYNC_LOCK = 0x41434345
"""Key of the PostgreSQL advisory lock under which effective members are rewritten."""


def effective_members() -> models.Manager[Any]:
    """The rows of the lists: `user_id`, and `group_id` of the `auth.Group`."""
    relation: Any = AuthGroup._meta.get_field("user")
    rows: models.Manager[Any] = relation.through._default_manager
    return rows


def owned_by(
    *,
    groups: Collection[uuid.UUID] = (),
    projects: Collection[uuid.UUID] = (),
    users: Collection[uuid.UUID] = (),
) -> set[int]:
    """Ids of the `auth.Group`s whose effective members depend on these; one query.

    Of two simultaneous changes (a user joins a group while the group joins a project) the later must see the earlier,
    so this waits for the other's end. Call it in the transaction of the change: before rows are deleted, and otherwise
    after the change, so that nobody waits for a row while he holds the lock.
    """
    one_at_a_time()
    through_group = "access_project__memberships__group"
    conditions = (
        Q(access_group__in=groups),
        Q(access_project__in=projects),
        Q(**{f"{through_group}__in": groups}),
        Q(access_group__memberships__user__in=users),
        Q(access_project__memberships__user__in=users),
        Q(**{f"{through_group}__memberships__user__in": users}),
    )
    first, *others = (AuthGroup.objects.filter(some).order_by().values_list("pk") for some in conditions)
    return {auth_group for (auth_group,) in first.union(*others)}


def expected_members(auth_groups: Collection[int] | None = None) -> set[tuple[int, uuid.UUID]]:
    """What the lists must hold, as (`auth.Group` id, user id), of these `auth.Group`s or of all; one query."""
    chosen = Q() if auth_groups is None else Q(pk__in=auth_groups)
    ways = (
        ("access_group__memberships__user", ("access_group",)),
        ("access_project__memberships__user", ("access_project",)),
        (
            "access_project__memberships__group__memberships__user",
            ("access_project", "access_project__memberships__group"),
        ),
    )
    first, *others = (
        AuthGroup.objects.filter(
            chosen,
            **{f"{member}__is_active": True, f"{member}__deleted_at": None, f"{member}__isnull": False},
            **{f"{container}__deleted_at": None for container in containers},
        )
        .order_by()
        .values_list("pk", member)
        for member, containers in ways
    )
    return set(first.union(*others))


def sync_effective_members(auth_groups: Collection[int] | None = None) -> int:
    """Rewrites the effective members of these `auth.Group`s, or of all that a Group or Project owns.

    The number of queries does not depend on the number of members. Returns how many rows were added or removed.
    """
    if auth_groups is not None and not auth_groups:
        return 0
    with transaction.atomic():
        one_at_a_time()
        missing, surplus = find_drift(auth_groups)
        rows = effective_members()
        rows.bulk_create(
            [rows.model(group_id=auth_group, user_id=user) for auth_group, user in sorted(missing)],
            ignore_conflicts=True,
        )
        rows.filter(pk__in=surplus.values()).delete()
    return len(missing) + len(surplus)


def find_drift(
    auth_groups: Collection[int] | None = None,
) -> tuple[set[tuple[int, uuid.UUID]], dict[tuple[int, uuid.UUID], int]]:
    """Where the lists differ from what they must hold: the missing members, and the surplus ones with their row's id.

    Both are empty unless somebody has changed memberships behind the models' back.
    """
    owned = Q(group__access_group__isnull=False) | Q(group__access_project__isnull=False)
    chosen = owned if auth_groups is None else Q(group__in=auth_groups)
    expected = expected_members(auth_groups)
    found = {
        (auth_group, user): row
        for row, auth_group, user in effective_members().filter(chosen).values_list("pk", "group_id", "user_id")
    }
    return expected - found.keys(), {pair: row for pair, row in found.items() if pair not in expected}


def one_at_a_time() -> None:
    """SQLite has a single writer, so only PostgreSQL needs a lock; it is held until the transaction ends."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [SYNC_LOCK])
