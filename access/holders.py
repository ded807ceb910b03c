"""Who sees a file, and why."""

from __future__ import annotations

import uuid
from collections import defaultdict
from dataclasses import dataclass

from django.db import models

from access.grantees import GranteeType
from access.grants import grants_on
from access.models import GroupMembership, ProjectMembership, Source, User
from access.models.people import IN_FORCE


@dataclass(frozen=True, slots=True)
class Holder:
    """A user who sees a file; `reasons` in words, such as `group "Proteomics Core"`."""

    user_id: uuid.UUID
    email: str
    reasons: tuple[str, ...]


def holders(file: models.Model | uuid.UUID) -> list[Holder]:
    """Everyone whom a grant lets see `file`, by address, each with every reason; seven queries.

    Administrators see every file without a grant and are not listed for that.
    """
    grants = grants_on([file])
    granted: dict[str, dict[uuid.UUID, str]] = defaultdict(dict)
    for row in grants:
        granted[row.grantee_type][row.grantee_id] = row.source
    groups, projects = granted[GranteeType.GROUP], granted[GranteeType.PROJECT]
    reasons: dict[uuid.UUID, list[str]] = defaultdict(list)
    for user_id, source in granted[GranteeType.USER].items():
        reasons[user_id].append("owner of the file" if source == Source.OWNER else "granted to the user")
    members = GroupMembership.objects.filter(group__in=groups, group__deleted_at=None)
    for user_id, group in members.values_list("user_id", "group__name"):
        reasons[user_id].append(f'group "{group}"')
    partners = ProjectMembership.objects.filter(project__in=projects, project__deleted_at=None)
    for user_id, project in partners.exclude(user=None).values_list("user_id", "project__name"):
        reasons[user_id].append(f'project "{project}"')
    through = partners.filter(group__deleted_at=None, group__memberships__isnull=False)
    for user_id, group, project in through.values_list("group__memberships__user_id", "group__name", "project__name"):
        reasons[user_id].append(f'project "{project}" through group "{group}"')
    users = User.objects.filter(IN_FORCE, pk__in=reasons).order_by("email").values_list("pk", "email")
    return [Holder(user_id, email, tuple(reasons[user_id])) for user_id, email in users]
