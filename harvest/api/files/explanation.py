"""Why a user sees a file: each grant that shows it to him, and the way from the grant to him."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import models
from django.db.models import Q

from access import policy
from access.grants import view_permission
from access.models import (
    FileGroupObjectPermission,
    FileUserObjectPermission,
    GroupMembership,
    ProjectMembership,
    Source,
    User,
)
from access.models.grants import unexpired
from harvest.models import FileRecord


class Via(models.TextChoices):
    """How a user comes to see a file."""

    ADMINISTRATOR = "administrator"
    OWNER = "owner"
    USER = "user"
    GROUP = "group"
    PROJECT = "project"
    PROJECT_THROUGH_GROUP = "project_through_group"


@dataclass(frozen=True, slots=True)
class Reason:
    """One of the reasons. `instrument_id`: the grant covers all files of the instrument."""

    via: Via
    text: str
    grant_id: uuid.UUID | None = None
    granted_at: datetime | None = None
    expires_at: datetime | None = None
    instrument_id: uuid.UUID | None = None
    group_id: uuid.UUID | None = None
    project_id: uuid.UUID | None = None


def reasons(file: FileRecord, user: User) -> list[Reason]:
    """Every reason why `user` sees `file`, the oldest grant first; none if he does not. Four queries at most."""
    if not policy.may_log_in(user):
        return []
    found = [Reason(Via.ADMINISTRATOR, "You are an administrator.")] if policy.is_admin(user) else []
    for row in _covering(FileUserObjectPermission.rows.filter(user=user), file):
        owner = row.source == Source.OWNER
        text = "You own the file." if owner else f"{_what(row)} granted to you."
        found.append(Reason(Via.OWNER if owner else Via.USER, text, **_facts(row)))
    circles = FileGroupObjectPermission.rows.filter(group__user=user).select_related(
        "group__access_group", "group__access_project"
    )
    rows = list(_covering(circles, file))
    groups = {row.group.access_group.pk for row in rows if hasattr(row.group, "access_group")}
    projects = {row.group.access_project.pk for row in rows if hasattr(row.group, "access_project")}
    ways = _ways(user, groups, projects)
    for row in rows:
        found += [
            Reason(via, f"{_what(row)} granted to {text}.", **_facts(row), **through)
            for via, text, through in ways.get(row.group_id, [])
        ]
    return found


def _covering(rows: Any, file: FileRecord) -> Any:
    """Those of the grants `rows` that are in force and show `file`."""
    shown = Q(content_object=file) | Q(instrument=file.instrument_id)
    return rows.filter(unexpired(), shown, permission__in=view_permission()).order_by("granted_at", "id")


def _ways(
    user: User, groups: set[uuid.UUID], projects: set[uuid.UUID]
) -> dict[int, list[tuple[Via, str, dict[str, Any]]]]:
    """For each `auth.Group` of these groups and projects the ways in which `user` is one of its effective members."""
    ways: dict[int, list[tuple[Via, str, dict[str, Any]]]] = {}
    inside = GroupMembership.objects.filter(user=user, group__in=groups, group__deleted_at=None)
    for member in inside.select_related("group"):
        group = member.group
        way = (Via.GROUP, f'your group "{group.name}"', {"group_id": group.pk})
        ways.setdefault(group.auth_group_id, []).append(way)
    through = Q(group__memberships__user=user, group__deleted_at=None)
    partners = ProjectMembership.objects.filter(Q(user=user) | through, project__in=projects, project__deleted_at=None)
    for partner in partners.select_related("project", "group").distinct():
        project, ids = partner.project, {"project_id": partner.project_id}
        if partner.group is None:
            way = (Via.PROJECT, f'your project "{project.name}"', ids)
        else:
            text = f'the project "{project.name}" of your group "{partner.group.name}"'
            way = (Via.PROJECT_THROUGH_GROUP, text, {**ids, "group_id": partner.group_id})
        ways.setdefault(project.auth_group_id, []).append(way)
    return ways


def _what(row: Any) -> str:
    return "The file was" if row.instrument_id is None else "All files of its instrument were"


def _facts(row: Any) -> dict[str, Any]:
    return {
        "grant_id": row.pk,
        "granted_at": row.granted_at,
        "expires_at": row.expires_at,
        "instrument_id": row.instrument_id,
    }
