"""Admin pages of people and rights. `AuditedAdmin` and `SoftDeletedAdmin` serve the other apps' pages as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, cast

from django.contrib import admin, messages
from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.forms import BaseUserCreationForm
from django.contrib.auth.models import Group as AuthGroup
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import Count, QuerySet
from django.http import HttpRequest

from access import accounts
from access.attempts import TooManyAttemptsError
from access.audit import record
from access.grants import revoke_grants
from access.models import (
    AuditEvent,
    FileGroupObjectPermission,
    FileUserObjectPermission,
    Group,
    GroupMembership,
    Project,
    ProjectMembership,
    User,
)

if TYPE_CHECKING:
    Page = admin.ModelAdmin[Any]
    Inline = admin.TabularInline[Any, Any]
    AccountPage = DjangoUserAdmin[User]
    AccountForm = BaseUserCreationForm[User]
else:  # Django's classes take type parameters in its stubs only
    Page, Inline, AccountPage, AccountForm = (
        admin.ModelAdmin,
        admin.TabularInline,
        DjangoUserAdmin,
        BaseUserCreationForm,
    )


class LogInForm(AdminAuthenticationForm):
    """Django's, which also says when somebody has tried too often."""

    def clean(self) -> dict[str, Any]:
        try:
            return super().clean()
        except TooManyAttemptsError as error:
            raise ValidationError(str(error)) from None


admin.site.login_form = LogInForm
# Its groups are the effective members that follow from the memberships; nobody edits them by hand.
admin.site.unregister(AuthGroup)


def acting(request: HttpRequest) -> User:
    """The administrator who asks; the admin pages answer nobody else."""
    return cast(User, request.user)


class AuditedAdmin(Page):
    """What is done on its pages is written to the audit log, in the transaction that does it."""

    show_full_result_count = False

    def log_addition(self, request: HttpRequest, obj: models.Model, message: Any) -> Any:
        record(f"{obj._meta.model_name}.created", by=acting(request), on=obj, detail={"changes": message})
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: models.Model, message: Any) -> Any:
        record(f"{obj._meta.model_name}.changed", by=acting(request), on=obj, detail={"changes": message})
        return super().log_change(request, obj, message)

    def log_deletions(self, request: HttpRequest, queryset: QuerySet[Any]) -> Any:
        for obj in queryset:
            record(f"{obj._meta.model_name}.deleted", by=acting(request), on=obj, detail={"name": str(obj)})
        return super().log_deletions(request, queryset)


class DeletedFilter(admin.SimpleListFilter):
    """Shows what is not deleted, unless asked for the rest."""

    title = "deleted"
    parameter_name = "deleted"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "Deleted"), ("all", "All")]

    def choices(self, changelist: Any) -> Any:
        first, *others = super().choices(changelist)
        return [{**first, "display": "Not deleted"}, *others]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match self.value():
            case "yes":
                return queryset.exclude(deleted_at=None)
            case "all":
                return queryset
            case _:
                return queryset.filter(deleted_at=None)


class SoftDeletedAdmin(AuditedAdmin):
    """Rows are marked as deleted and restored; none is ever removed."""

    list_filter: ClassVar[Any] = (DeletedFilter,)
    actions: Any = ("soft_delete", "restore")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        """What is deleted is not proposed to other pages' fields."""
        if request.resolver_match and request.resolver_match.url_name == "autocomplete":
            queryset = queryset.filter(deleted_at=None)
        return super().get_search_results(request, queryset, search_term)

    @admin.action(description="Delete the chosen %(verbose_name_plural)s (can be restored)")
    def soft_delete(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self._each(request, queryset.filter(deleted_at=None), "deleted", lambda row: row.soft_delete())

    @admin.action(description="Restore the chosen %(verbose_name_plural)s")
    def restore(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self._each(request, queryset.exclude(deleted_at=None), "restored", lambda row: row.restore())

    def _each(self, request: HttpRequest, rows: QuerySet[Any], done: str, change: Callable[[Any], None]) -> None:
        """Does it to one after the other: one that cannot be changed does not hold up the rest."""
        count = 0
        for row in rows:
            try:
                with transaction.atomic():
                    change(row)
                    record(f"{row._meta.model_name}.{done}", by=acting(request), on=row, detail={"name": str(row)})
            except ValidationError as error:
                self.message_user(request, f"{row}: {' '.join(error.messages)}", messages.ERROR)
            else:
                count += 1
        say_how_many(self, request, count, done)


def say_how_many(page: Page, request: HttpRequest, count: int, done: str) -> None:
    names = page.opts.verbose_name if count == 1 else page.opts.verbose_name_plural
    page.message_user(request, f"{count} {names} {done}.", messages.SUCCESS if count else messages.WARNING)


class MembershipInline(Inline):
    """Memberships are added and removed; the row of one is never changed."""

    extra = 0
    show_change_link = False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class GroupMembershipInline(MembershipInline):
    model = GroupMembership
    autocomplete_fields = ("user",)
    verbose_name_plural = "members"


class ProjectMembershipInline(MembershipInline):
    model = ProjectMembership
    autocomplete_fields = ("user", "group")
    verbose_name_plural = "members (a user or a group in each row)"


class GroupsOfUserInline(MembershipInline):
    model = GroupMembership
    autocomplete_fields = ("group",)
    verbose_name_plural = "groups"


class ProjectsOfUserInline(MembershipInline):
    model = ProjectMembership
    autocomplete_fields = ("project",)
    exclude = ("group",)
    verbose_name_plural = "projects (besides those of the groups)"


class UserCreationForm(AccountForm):
    class Meta:
        model = User
        fields = ("email", "role")
        field_classes: dict[str, Any] = {}


@admin.register(User)
class UserAdmin(SoftDeletedAdmin, AccountPage):
    list_display = ("email", "role", "is_active", "is_verified", "last_login", "created_at", "deleted_at")
    list_filter = ("role", "is_active", "is_verified", DeletedFilter)
    search_fields = ("email",)
    ordering = ("email",)
    filter_horizontal = ()
    fieldsets = (
        (None, {"fields": ("email", "password")}),
        ("Rights", {"fields": ("role", "is_active", "is_verified")}),
        ("Times", {"fields": ("last_login", "created_at", "updated_at", "deleted_at")}),
    )
    add_fieldsets = ((None, {"classes": ("wide",), "fields": ("email", "role", "password1", "password2")}),)
    readonly_fields = ("last_login", "created_at", "updated_at", "deleted_at")
    add_form = UserCreationForm
    inlines = (GroupsOfUserInline, ProjectsOfUserInline)
    actions = ("soft_delete", "restore", "deactivate", "activate")

    def get_inlines(self, request: HttpRequest, obj: Any) -> Any:
        return self.inlines if obj else ()

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Nobody takes his own rights away by a slip; another administrator can."""
        mine = obj is not None and obj.pk == request.user.pk
        return (*self.readonly_fields, *(("role", "is_active") if mine else ()))

    @admin.action(description="Delete the chosen users (can be restored)")
    def soft_delete(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self._account(request, accounts.delete_users, queryset, "deleted")

    @admin.action(description="Restore the chosen users")
    def restore(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self._account(request, accounts.restore_users, queryset, "restored")

    @admin.action(description="Deactivate the chosen users")
    def deactivate(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self._account(request, accounts.deactivate_users, queryset, "deactivated")

    @admin.action(description="Activate the chosen users")
    def activate(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self._account(request, accounts.activate_users, queryset, "activated")

    def _account(self, request: HttpRequest, change: Callable[..., int], users: QuerySet[User], done: str) -> None:
        try:
            say_how_many(self, request, change(users, by=acting(request)), done)
        except accounts.LockedOutError as error:
            self.message_user(request, str(error), messages.ERROR)


class ContainerAdmin(SoftDeletedAdmin):
    list_display: Any = ("name", "description", "members", "created_at", "deleted_at")
    search_fields = ("name", "description")
    ordering = ("name",)
    readonly_fields = ("created_at", "updated_at", "deleted_at")
    fields = ("name", "description", *readonly_fields)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).annotate(members=Count("auth_group__user", distinct=True))

    @admin.display(description="effective members", ordering="members")
    def members(self, row: Any) -> int:
        return row.members


@admin.register(Group)
class GroupAdmin(ContainerAdmin):
    inlines = (GroupMembershipInline,)


@admin.register(Project)
class ProjectAdmin(ContainerAdmin):
    inlines = (ProjectMembershipInline,)


class GrantAdmin(Page):
    """Shows the grants and takes them back. Granting is done where the file is."""

    list_filter = ("source",)
    search_fields: ClassVar[Any] = ("=content_object__persistent_id",)
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description="file or instrument")
    def covers(self, row: Any) -> str:
        return str(row.content_object or f"all files of {row.instrument}")

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        revoke_grants([obj.pk], by=acting(request))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        revoke_grants(queryset.values_list("pk", flat=True), by=acting(request))


@admin.register(FileUserObjectPermission)
class UserGrantAdmin(GrantAdmin):
    list_display = ("covers", "user", "source", "granted_at", "granted_by", "expires_at")
    list_select_related = ("content_object", "instrument", "user", "granted_by")
    search_fields = (*GrantAdmin.search_fields, "user__email")


@admin.register(FileGroupObjectPermission)
class GroupGrantAdmin(GrantAdmin):
    list_display = ("covers", "holder", "source", "granted_at", "granted_by", "expires_at")
    list_select_related = ("content_object", "instrument", "group__access_group", "group__access_project", "granted_by")
    search_fields = (*GrantAdmin.search_fields, "group__access_group__name", "group__access_project__name")

    @admin.display(description="group or project")
    def holder(self, row: Any) -> str:
        circle = getattr(row.group, "access_group", None) or getattr(row.group, "access_project", None)
        return f"{circle._meta.verbose_name} {circle}" if circle else str(row.group)


@admin.register(AuditEvent)
class AuditEventAdmin(Page):
    """To read only."""

    list_display = ("at", "actor", "action", "object_type", "object_id")
    list_filter = ("object_type",)
    list_select_related = ("actor",)
    search_fields = ("=action", "=object_id", "actor__email")
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
