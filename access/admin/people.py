"""Admin pages of users, groups and projects."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.forms import BaseUserCreationForm
from django.db import transaction
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse

from access import accounts
from access.admin.base import DeletedFilter, Inline, SoftDeletedAdmin, acting, say_how_many
from access.members import add_members, remove_members
from access.models import Group, GroupMembership, Project, ProjectMembership, User

if TYPE_CHECKING:
    AccountPage = DjangoUserAdmin[User]
    AccountForm = BaseUserCreationForm[User]
else:  # Django's classes take type parameters in its stubs only
    AccountPage, AccountForm = DjangoUserAdmin, BaseUserCreationForm


class MembershipInline(Inline):
    """Memberships are added and removed; the row of one is never changed. What is deleted neither joins nor grows."""

    extra = 0
    show_change_link = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return obj is None or obj.deleted_at is None

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        kwargs["queryset"] = db_field.related_model.objects.alive()
        return super().formfield_for_foreignkey(db_field, request, **kwargs)


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


class MembersAdmin(SoftDeletedAdmin):
    """Pages whose inlines are memberships. They begin and end as they do through the API, with the same events."""

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        formset.save(commit=False)
        for row in formset.new_objects:
            add_members(to=row.container, members=[row.member], by=acting(request))
        for row in formset.deleted_objects:
            remove_members(of=row.container, members=[row.member], by=acting(request))


class UserCreationForm(AccountForm):
    class Meta:
        model = User
        fields = ("email", "role")
        field_classes: dict[str, Any] = {}


@admin.register(User)
class UserAdmin(MembersAdmin, AccountPage):
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

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:
        """In one transaction with its event; Django's own is in none."""
        with transaction.atomic():
            return super().user_change_password(request, id, form_url)

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


class ContainerAdmin(MembersAdmin):
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
