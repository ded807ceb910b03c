"""Who sees which files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeGuard

from django.contrib.auth.models import AnonymousUser
from django.db import models
from django.db.models import Count, F, Q

from access import policy
from access.grants import view_permission
from access.models import FileGroupObjectPermission, FileUserObjectPermission, User
from access.models.grants import unexpired

MANY_FILES = 20_000
"""Who may see so many is asked about by walking an index of the files, rather than by collecting what he may see."""
SOME_FILES = 2_000
"""Who may see so many finds a short page of them among the newest of all."""


class Gathered(models.Lookup):
    """`lhs` is one of the ids of the subquery `rhs`, which are gathered first and then looked up by their key.

    For IN, PostgreSQL estimates how many ids they are, and joins accordingly; here it fetches the rows in the order in
    which they lie. But it compares one id after the other where it finds the rows by another index: nothing else in the
    query may look like something that an index finds. On SQLite it is IN.
    """

    lookup_name = "gathered"
    prepare_rhs = False
    output_field = models.BooleanField()

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        return self._sql("{} IN {}", compiler, connection)

    def as_postgresql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        return self._sql("{} = ANY(ARRAY{})", compiler, connection)

    def _sql(self, template: str, compiler: Any, connection: Any) -> tuple[str, Any]:
        left, left_params = self.process_lhs(compiler, connection)
        right, right_params = self.process_rhs(compiler, connection)
        return template.format(left, right), [*left_params, *right_params]


@dataclass(frozen=True)
class Sight:
    """What a user may see. Without `ids`: nothing, or `everything`."""

    everything: bool = False
    ids: models.QuerySet[Any] | None = None
    """A union: of the files that he was granted one by one, and of those of instruments with less than MANY_FILES."""
    instruments: frozenset[Any] = frozenset()
    """All of whose files he may see, and which have more."""
    size: int | None = None
    """How many files he may see, some perhaps counted twice; None where they are not `ids` alone, or not counted."""

    def condition(self, *, file: str = "pk", instrument: str = "instrument") -> Q:
        """That he may see a file; `file` and `instrument` say where to find them.

        PostgreSQL looks the ids of a union up by their key: that costs 5 µs for each (60 ms for 10,000 of a million
        files, 1 ms for 20), wherever in the table the files are, and whatever else is asked of them. Two conditions
        with OR between make it walk an index of the files instead, and look at each: 300 ms for those who may see few.
        That is better only for those who may see many, as they do by a grant on an instrument.
        """
        if self.everything:
            return Q()
        if self.ids is None:
            return Q(pk__in=[])
        granted = Q(**{f"{file}__in": self.ids})
        return granted | Q(**{f"{instrument}__in": self.instruments}) if self.instruments else granted

    def gathered(self, *, file: str = "pk", among: models.QuerySet[Any] | None = None) -> Q:
        """The same for a list of which nothing else is asked that an index could find, see Gathered; or for the part of
        it whose ids are `among` these."""
        if self.ids is None:
            return self.condition(file=file) & (Q() if among is None else Q(**{f"{file}__in": among}))
        return Q(Gathered(F(file), (self.ids if among is None else among.intersection(self.ids)).query))


def sight_of(user: User | AnonymousUser, *, counted: bool = False) -> Sight:
    """What `user` may see, for lists `counted`. One query, and a second one for who was granted whole instruments."""
    if policy.is_admin(user):
        return Sight(everything=True)
    if not policy.may_log_in(user):
        return Sight()
    grants = _granted_to(user)
    ids = [rows.filter(content_object__isnull=False).values("content_object_id") for rows in grants]
    asked = [rows if counted else rows.filter(instrument__isnull=False) for rows in grants]
    of_each = [rows.values_list("instrument_id").annotate(number=Count("pk")) for rows in asked]
    numbers = list(of_each[0].union(of_each[1], all=True))
    instruments = frozenset(instrument for instrument, _ in numbers if instrument is not None)
    size = sum(number for instrument, number in numbers if instrument is None)
    if instruments:
        files = file_model()._base_manager.filter(instrument__in=instruments).order_by().values("pk")
        number = files[:MANY_FILES].count()
        if number >= MANY_FILES:
            return Sight(ids=ids[0].union(*ids[1:], all=True), instruments=instruments)
        ids.append(files)
        size += number
    return Sight(ids=ids[0].union(*ids[1:], all=True), size=size if counted else None)


def visible_files(user: User | AnonymousUser, *, file: str = "pk", instrument: str = "instrument") -> Q:
    """The condition that `user` may see a file, at `file`, of the instrument at `instrument`."""
    return sight_of(user).condition(file=file, instrument=instrument)


def is_file(obj: Any) -> TypeGuard[models.Model]:
    return isinstance(obj, file_model())


def file_model() -> type[models.Model]:
    """The model of files, which belongs to another app."""
    return FileUserObjectPermission._meta.get_field("content_object").related_model


def granted_codenames(user: User, file: Any, *, directly: bool = True) -> set[str]:
    """The codenames of the permissions on `file` that `user` was granted, by grants in force; one query.

    `directly=False` leaves out what was granted to himself and not to his groups and projects.
    """
    covering = unexpired() & (Q(content_object=file.pk) | Q(instrument=file.instrument_id))
    asked = _shared_with(user).filter(covering).order_by().values_list("permission__codename", flat=True)
    if directly:
        own = FileUserObjectPermission.rows.filter(covering, user=user.pk).order_by()
        asked = asked.union(own.values_list("permission__codename", flat=True))
    return set(asked)


def _granted_to(user: User | AnonymousUser) -> tuple[models.QuerySet[Any], models.QuerySet[Any]]:
    """The grants in force to the user himself, and to his groups and projects."""
    view = {"permission": view_permission().values("pk")[:1]}
    own = FileUserObjectPermission.rows.filter(unexpired(), user=user.pk, **view)
    return own.order_by(), _shared_with(user).filter(unexpired(), **view).order_by()


def _shared_with(user: User | AnonymousUser) -> models.QuerySet[Any]:
    circles = User.groups.through.objects.filter(user=user.pk).values("group_id")
    return FileGroupObjectPermission.rows.filter(group__in=circles)
