"""Who can hold a grant: users, groups and projects, found by id, e-mail or name."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from django.db import models
from django.db.models import Q, Value
from django.db.models.functions import Lower

from access.models import Group, Project, User

Reference = str | uuid.UUID
"""An id, or what people say instead: a user's e-mail, a group's or project's name. Letter case does not count."""


class GranteeType(models.TextChoices):
    USER = "user"
    GROUP = "group"
    PROJECT = "project"


@dataclass(frozen=True, slots=True)
class Grantee:
    """`key`: what the grant's row refers to, a user's id or the id of the owned `auth.Group`."""

    grantee_type: GranteeType
    id: uuid.UUID
    name: str
    key: Any


def find(wanted: Iterable[tuple[str, Reference]]) -> dict[tuple[str, Reference], Grantee | str]:
    """For each (grantee type, reference) the grantee, or the reason why there is none.

    Costs one query per type that occurs. Who is deleted is not found; who is deactivated is.
    """
    references: dict[str, set[Reference]] = defaultdict(set)
    for grantee_type, reference in wanted:
        references[grantee_type].add(reference)
    answers: dict[tuple[str, Reference], Grantee | str] = {}
    for grantee_type, some in references.items():
        known = FINDERS[grantee_type](some) if grantee_type in FINDERS else []
        by_id = {str(grantee.id): grantee for grantee in known}
        by_name = {grantee.name.lower(): grantee for grantee in known}
        for reference in some:
            found = by_id.get(_as_id(reference)) or by_name.get(_as_name(reference))
            answers[grantee_type, reference] = found or _why_not(grantee_type, reference)
    return answers


def _why_not(grantee_type: str, reference: Reference) -> str:
    if grantee_type not in FINDERS:
        return f'grantee_type: "{grantee_type}" is not one of {", ".join(GranteeType.values)}.'
    called = "id or e-mail" if grantee_type == GranteeType.USER else "id or name"
    return f'grantee: there is no {grantee_type} with the {called} "{reference}". Create it, or correct the reference.'


def _as_id(reference: Reference) -> str:
    """The canonical form of an id, empty if it is none."""
    try:
        return str(uuid.UUID(str(reference).strip()))
    except ValueError:
        return ""


def _as_name(reference: Reference) -> str:
    return str(reference).strip().lower()


def _named(references: Iterable[Reference]) -> Q:
    """Those whose id or `folded` name is among `references`; the database folds, as it does in its unique indexes."""
    ids = [found for reference in references if (found := _as_id(reference))]
    names = [Lower(Value(str(reference).strip())) for reference in references]
    return Q(pk__in=ids) | Q(folded__in=names)


def _users(references: Iterable[Reference]) -> list[Grantee]:
    rows = User.objects.alive().alias(folded=Lower("email")).filter(_named(references)).order_by()
    return [Grantee(GranteeType.USER, pk, email, pk) for pk, email in rows.values_list("pk", "email")]


def _containers(model: type[Group] | type[Project], grantee_type: GranteeType) -> Callable[..., list[Grantee]]:
    def finder(references: Iterable[Reference]) -> list[Grantee]:
        rows = model.objects.alive().alias(folded=Lower("name")).filter(_named(references)).order_by()
        return [
            Grantee(grantee_type, pk, name, key) for pk, name, key in rows.values_list("pk", "name", "auth_group_id")
        ]

    return finder


FINDERS: dict[str, Callable[[Iterable[Reference]], list[Grantee]]] = {
    GranteeType.USER: _users,
    GranteeType.GROUP: _containers(Group, GranteeType.GROUP),
    GranteeType.PROJECT: _containers(Project, GranteeType.PROJECT),
}
