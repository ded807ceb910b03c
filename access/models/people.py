"""People, the groups and projects they belong to, and the effective members that follow from it.

Grants know users and `auth.Group`s, so each Group and each Project owns one `auth.Group`. It lists the *effective*
members: a Group's users; a Project's users and those of its groups. Who is deactivated or deleted is no effective
member, and neither a deleted group nor a deleted project has any. Whatever changes one of these facts through a model,
a queryset or the admin rewrites the lists in the same transaction. Raw SQL does not; `find_drift` finds what it broke,
and `sync_effective_members` without arguments repairs it.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable
from typing import Any, ClassVar, Self

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import Group as AuthGroup
from django.contrib.auth.models import PermissionsMixin
from django.db import connection, models, transaction
from django.db.models import F, Q, Value
from django.db.models.functions import Lower
from django.utils import timezone
from django.utils.crypto import salted_hmac

from access.policy import Role
from streamweave.lib.models import SoftDeletedModel, SoftDeletedQuerySet

IN_FORCE = Q(is_active=True, deleted_at__isnull=True)
TOKEN_ENDING = frozenset({"password", "role", "is_active", "deleted_at"})
"""Whoever changes one of these in a user ends every log-in and API token of his: `token_version` grows."""
SYNC_LOCK = 0x41434345
"""Key of the PostgreSQL advisory lock under which effective members are rewritten."""


class UserQuerySet(SoftDeletedQuerySet):
    def with_email(self, email: str) -> Self:
        """Those with this address, letter case aside. Both sides are folded by the database, as its unique index is."""
        return self.alias(folded_email=Lower("email")).filter(folded_email=Lower(Value(email)))

    def update(self, **values: Any) -> int:
        if values.keys() & TOKEN_ENDING:
            values["token_version"] = F("token_version") + 1
        if not values.keys() & {"is_active", "deleted_at"}:
            return super().update(**values)
        with transaction.atomic():
            users = list(self.order_by().values_list("pk", flat=True))
            changed = super().update(**values)
            sync_effective_members(owned_by(users=users))
        return changed

    def note_log_in(self) -> int:
        """Writes `last_login`, and that alone: `updated_at` tells of changes of the user."""
        return models.QuerySet.update(self, last_login=timezone.now())

    def log_out_everywhere(self) -> int:
        """Ends every session, log-in and API token of these users."""
        return super().update(token_version=F("token_version") + 1)


class UserManager(BaseUserManager.from_queryset(UserQuerySet)):  # type: ignore[misc]
    def get_by_natural_key(self, username: str | None) -> User:
        return self.with_email(username or "").get()

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        """A new user. Without a password he cannot log in before he has set one.

        Raises ValueError without an address, IntegrityError if another user has it.
        """
        if not email:
            raise ValueError("email: a user needs an address, by which he logs in.")
        user = User(email=self.normalize_email(email), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> User:
        """A new administrator."""
        return self.create_user(email, password, **{**fields, "role": Role.ADMIN})


class User(AbstractBaseUser, PermissionsMixin, SoftDeletedModel):
    """A person who logs in by e-mail. `groups` are the `auth.Group`s of his groups and projects; see above."""

    email = models.EmailField(unique=True, help_text="As it was given, the domain in lower case.")
    role = models.CharField(max_length=20, choices=Role, default=Role.USER)
    is_active = models.BooleanField(default=True, help_text="A deactivated user can neither log in nor see anything.")
    is_verified = models.BooleanField(default=False, help_text="The e-mail address was confirmed.")
    # Django and guardian let a superuser do everything without looking further, so the database itself keeps this one
    # true to the role.
    is_superuser = models.GeneratedField(
        expression=Q(role=Role.ADMIN) & IN_FORCE,  # type: ignore[arg-type]
        output_field=models.BooleanField(),
        db_persist=True,
        serialize=False,
    )
    token_version = models.PositiveIntegerField(default=0, editable=False)

    objects: ClassVar[UserManager] = UserManager()

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"

    class Meta:
        ordering = ("created_at", "id")
        constraints = [
            models.UniqueConstraint(
                Lower("email"),
                name="user_email_unique",
                violation_error_message="email: another user already has this address (letter case does not count).",
            ),
            models.CheckConstraint(condition=Q(role__in=Role.values), name="user_role_known"),
        ]

    def __str__(self) -> str:
        return self.email

    @property
    def is_staff(self) -> bool:
        """May open the admin pages."""
        return self.is_superuser

    def clean(self) -> None:
        super().clean()
        self.email = User.objects.normalize_email(self.email)

    def _get_session_auth_hash(self, secret: str | None = None) -> str:
        """Sessions end when the password changes, as Django has it, and with everything else that ends tokens."""
        return salted_hmac(
            "access.models.User.session", f"{self.password}:{self.token_version}", secret=secret, algorithm="sha256"
        ).hexdigest()

    def save(self, *args: Any, update_fields: Iterable[str] | None = None, **kwargs: Any) -> None:
        """`token_version` is never written from memory, where it may be older than in the database."""
        if self._state.adding:
            super().save(*args, update_fields=update_fields, **kwargs)
            return
        columns = {column.name for column in self._meta.concrete_fields if not column.generated}
        names = columns - {"id"} if update_fields is None else set(update_fields)
        # Django saves the password alone when it has only hashed the same one anew, at a log-in.
        only_hashed_anew = names == {"password"} and getattr(self, "_password", None) is None
        watched = set() if only_hashed_anew else TOKEN_ENDING & names
        with transaction.atomic():
            before = type(self).objects.filter(pk=self.pk).values(*watched).first() if watched else None
            super().save(*args, update_fields=names - {"token_version"}, **kwargs)
            self.__dict__.pop("is_superuser", None)  # the database may have changed it: read anew when asked for
            if before and any(getattr(self, name) != was for name, was in before.items()):
                type(self).objects.filter(pk=self.pk).log_out_everywhere()
                self.refresh_from_db(fields=["token_version"])
            if names & {"is_active", "deleted_at"}:
                sync_effective_members(owned_by(users=[self.pk]))


class ContainerQuerySet(SoftDeletedQuerySet):
    def update(self, **values: Any) -> int:
        if "deleted_at" not in values:
            return super().update(**values)
        with transaction.atomic():
            ids = list(self.order_by().values_list("pk", flat=True))
            changed = super().update(**values)
            sync_effective_members(self.model.touched(ids))
        return changed

    def delete(self) -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            _one_at_a_time()
            touched = self.model.touched(list(self.order_by().values_list("pk", flat=True)))
            owned = list(self.order_by().values_list("auth_group_id", flat=True))
            deleted = super().delete()
            AuthGroup.objects.filter(pk__in=owned).delete()
            sync_effective_members(touched)
        return deleted

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]


class Container(SoftDeletedModel):
    """What a Group and a Project have in common."""

    KIND: ClassVar[str]

    name = models.CharField(max_length=200)
    description = models.TextField(null=True, blank=True)
    auth_group = models.OneToOneField(
        AuthGroup, on_delete=models.PROTECT, related_name="access_%(class)s", editable=False
    )

    objects: ClassVar[models.Manager[Any]] = ContainerQuerySet.as_manager()

    class Meta:
        abstract = True
        ordering = ("created_at", "id")

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        super().clean()
        self.name = self.name.strip()
        self.description = self.description or None

    @classmethod
    def touched(cls, ids: Collection[uuid.UUID]) -> set[int]:
        """Ids of the `auth.Group`s whose effective members depend on these containers."""
        raise NotImplementedError

    def save(self, *args: Any, update_fields: Iterable[str] | None = None, **kwargs: Any) -> None:
        was_adding = self._state.adding
        names = None if update_fields is None else set(update_fields)
        with transaction.atomic():
            if was_adding and not self.auth_group_id:
                self.auth_group = AuthGroup.objects.create(name=f"{self.KIND}:{self.pk}")
            super().save(*args, update_fields=names, **kwargs)
            if not was_adding and (names is None or "deleted_at" in names):
                sync_effective_members(self.touched([self.pk]))

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        return type(self).objects.filter(pk=self.pk).delete()

    def restore(self) -> None:
        """Raises ValidationError if another has taken the name meanwhile."""
        self.deleted_at = None
        self.validate_constraints()
        super().restore()


def unique_name(kind: str) -> list[models.BaseConstraint]:
    """Names are unique among those that are not deleted, letter case aside, and never empty."""
    return [
        models.UniqueConstraint(
            Lower("name"),
            condition=Q(deleted_at=None),
            name=f"{kind}_name_unique",
            violation_error_message=f"name: another {kind} is already called so (letter case does not count).",
        ),
        models.CheckConstraint(
            condition=~Q(name=""), name=f"{kind}_name_given", violation_error_message="name: must not be empty."
        ),
    ]


class Group(Container):
    """Users who belong together: a laboratory, a core facility."""

    KIND = "group"

    class Meta(Container.Meta):
        constraints = unique_name("group")

    @classmethod
    def touched(cls, ids: Collection[uuid.UUID]) -> set[int]:
        return owned_by(groups=ids)


class Project(Container):
    """A piece of work, shared by users and by whole groups."""

    KIND = "project"

    class Meta(Container.Meta):
        constraints = unique_name("project")

    @classmethod
    def touched(cls, ids: Collection[uuid.UUID]) -> set[int]:
        return owned_by(projects=ids)


class MembershipChangedError(TypeError):
    """A membership is removed and another added, never changed."""

    def __init__(self) -> None:
        super().__init__("A membership is not changed: remove it and add another.")


class MembershipQuerySet(models.QuerySet[Any]):
    def update(self, **values: Any) -> int:
        raise MembershipChangedError

    def bulk_create(self, objs: Iterable[Any], *args: Any, **kwargs: Any) -> list[Any]:
        with transaction.atomic():
            created = super().bulk_create(objs, *args, **kwargs)
            sync_effective_members(touched_by(created))
        return created

    def delete(self) -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            _one_at_a_time()
            touched = touched_by(self)
            deleted = super().delete()
            sync_effective_members(touched)
        return deleted

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]


class Membership(models.Model):
    """What a GroupMembership and a ProjectMembership have in common. It is added and removed, never changed."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = MembershipQuerySet.as_manager()

    class Meta:
        abstract = True
        ordering = ("created_at", "id")

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise MembershipChangedError
        with transaction.atomic():
            super().save(*args, **kwargs)
            sync_effective_members(touched_by([self]))

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            touched = touched_by([self])
            deleted = super().delete(*args, **kwargs)
            sync_effective_members(touched)
        return deleted


class GroupMembership(Membership):
    """A user in a group."""

    group = models.ForeignKey(Group, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="group_memberships")

    class Meta(Membership.Meta):
        constraints = [models.UniqueConstraint(fields=["group", "user"], name="group_membership_unique")]

    def __str__(self) -> str:
        return f"{self.user} in {self.group}"

    @property
    def member_id(self) -> uuid.UUID:
        return self.user_id


class ProjectMembership(Membership):
    """A user, or a whole group, in a project."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, null=True, blank=True, on_delete=models.CASCADE, related_name="project_memberships")
    group = models.ForeignKey(
        Group, null=True, blank=True, on_delete=models.CASCADE, related_name="project_memberships"
    )

    class Meta(Membership.Meta):
        constraints = [
            models.UniqueConstraint(fields=["project", "user"], name="project_membership_user_unique"),
            models.UniqueConstraint(fields=["project", "group"], name="project_membership_group_unique"),
            models.CheckConstraint(
                condition=Q(user__isnull=True) ^ Q(group__isnull=True),
                name="project_membership_user_xor_group",
                violation_error_message="user, group: a project's member is either a user or a group; give one.",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user or self.group} in {self.project}"

    @property
    def member_type(self) -> str:
        return "user" if self.user_id else "group"

    @property
    def member_id(self) -> uuid.UUID | None:
        """The user's id or the group's."""
        return self.user_id or self.group_id


EffectiveMember = User.groups.through
"""The rows of the lists: `user_id`, and `group_id` of the `auth.Group`."""


def touched_by(memberships: Iterable[Membership]) -> set[int]:
    groups = {row.group_id for row in memberships if isinstance(row, GroupMembership)}
    projects = {row.project_id for row in memberships if isinstance(row, ProjectMembership)}
    return owned_by(groups=groups, projects=projects)


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
    _one_at_a_time()
    inside, shared = GroupMembership.objects, ProjectMembership.objects
    touched = Group.objects.filter(pk__in=groups).values_list("auth_group_id")
    return {
        auth_group
        for (auth_group,) in touched.order_by().union(
            Project.objects.filter(pk__in=projects).order_by().values_list("auth_group_id"),
            shared.filter(group__in=groups).order_by().values_list("project__auth_group_id"),
            inside.filter(user__in=users).order_by().values_list("group__auth_group_id"),
            shared.filter(user__in=users).order_by().values_list("project__auth_group_id"),
            shared.filter(group__memberships__user__in=users).order_by().values_list("project__auth_group_id"),
        )
    }


def expected_members(auth_groups: Collection[int] | None = None) -> set[tuple[int, uuid.UUID]]:
    """What the lists must hold, as (`auth.Group` id, user id), of these `auth.Group`s or of all; one query."""
    member = Q(user__is_active=True, user__deleted_at=None)
    in_groups = GroupMembership.objects.filter(member, group__deleted_at=None)
    in_projects = ProjectMembership.objects.filter(member, project__deleted_at=None)
    through_groups = ProjectMembership.objects.filter(
        project__deleted_at=None,
        group__deleted_at=None,
        group__memberships__user__is_active=True,
        group__memberships__user__deleted_at=None,
    )
    if auth_groups is not None:
        in_groups = in_groups.filter(group__auth_group__in=auth_groups)
        in_projects = in_projects.filter(project__auth_group__in=auth_groups)
        through_groups = through_groups.filter(project__auth_group__in=auth_groups)
    return set(
        in_groups.order_by()
        .values_list("group__auth_group_id", "user_id")
        .union(
            in_projects.order_by().values_list("project__auth_group_id", "user_id"),
            through_groups.order_by().values_list("project__auth_group_id", "group__memberships__user_id"),
        )
    )


def sync_effective_members(auth_groups: Collection[int] | None = None) -> int:
    """Rewrites the effective members of these `auth.Group`s, or of all that a Group or Project owns.

    The number of queries does not depend on the number of members. Returns how many rows were added or removed.
    """
    if auth_groups is not None and not auth_groups:
        return 0
    with transaction.atomic():
        _one_at_a_time()
        missing, surplus = find_drift(auth_groups)
        EffectiveMember.objects.bulk_create(
            [EffectiveMember(group_id=auth_group, user_id=user) for auth_group, user in sorted(missing)],
            ignore_conflicts=True,
        )
        EffectiveMember.objects.filter(pk__in=surplus.values()).delete()
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
        for row, auth_group, user in EffectiveMember.objects.filter(chosen).values_list("pk", "group_id", "user_id")
    }
    return expected - found.keys(), {pair: row for pair, row in found.items() if pair not in expected}


def _one_at_a_time() -> None:
    """SQLite has a single writer, so only PostgreSQL needs a lock; it is held until the transaction ends."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [SYNC_LOCK])
