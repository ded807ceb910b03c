"""Who sees a file, and why."""

from __future__ import annotations

import uuid
from collections import defaultdict
from dataclasses import dataclass

from django.db import models
from django.utils import timezone

from access.grantees import GranteeType
from access.grants import Grant, InstrumentGrant, grants_on, grants_on_instruments
from access.models import GroupMembership, ProjectMembership, Source, User
from access.models.users import IN_FORCE
from access.sight import file_model


@dataclass(frozen=True, slots=True)
class Holder:
    """A user who sees a file; `reasons` in words, such as `group "Proteomics Core"`."""

    user_id: uuid.UUID
    email: str
    reasons: tuple[str, ...]


def holders(file: models.Model | uuid.UUID) -> list[Holder]:
    """Everyone whom a grant in force lets see `file`, by address, each with every reason; eleven queries.

    Administrators see every file without a grant and are not listed for that.
    """
    pk = file.pk if isinstance(file, models.Model) else file
    instruments = file_model()._base_manager.filter(pk=pk).values_list("instrument_id", flat=True)
    now = timezone.now()
    granted: dict[str, dict[uuid.UUID, list[str]]] = defaultdict(lambda: defaultdict(list))
    owners = set()
    rows: list[Grant | InstrumentGrant] = [*grants_on([pk]), *grants_on_instruments(instruments)]
    for row in rows:
        if row.expires_at is not None and row.expires_at <= now:
            continue
        if row.source == Source.OWNER:
            owners.add(row.grantee_id)
        whole = " for the whole instrument" if isinstance(row, InstrumentGrant) else ""
        granted[row.grantee_type][row.grantee_id].append(whole)
    groups, projects = granted[GranteeType.GROUP], granted[GranteeType.PROJECT]
    reasons: dict[uuid.UUID, list[str]] = defaultdict(list)
    for user_id, wholes in granted[GranteeType.USER].items():
        owner = user_id in owners
        reasons[user_id] += [
            "owner of the file" if owner and not whole else f"granted to the user{whole}" for whole in wholes
        ]
    members = GroupMembership.objects.filter(group__in=groups, group__deleted_at=None)
    for user_id, pk, group in members.values_list("user_id", "group_id", "group__name"):
        reasons[user_id] += [f'group "{group}"{whole}' for whole in groups[pk]]
    partners = ProjectMembership.objects.filter(project__in=projects, project__deleted_at=None)
    for user_id, pk, project in partners.exclude(user=None).values_list("user_id", "project_id", "project__name"):
        reasons[user_id] += [f'project "{project}"{whole}' for whole in projects[pk]]
    through = partners.filter(group__deleted_at=None, group__memberships__isnull=False)
    for user_id, group, pk, project in through.values_list(
        "group__memberships__user_id", "group__name", "project_id", "project__name"
    ):
        reasons[user_id] += [f'project "{project}" through group "{group}"{whole}' for whole in projects[pk]]
    users = User.objects.filter(IN_FORCE, pk__in=reasons).order_by("email").values_list("pk", "email")
    return [Holder(user_id, email, tuple(reasons[user_id])) for user_id, email in users]
