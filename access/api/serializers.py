"""People, groups, projects and tokens as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.utils import timezone
from rest_framework import serializers

from access.models import ApiToken, Group, GroupMembership, Project, ProjectMembership, User
from access.policy import Role
from streamweave.lib.rest.configured import ConfiguredSerializer
from streamweave.lib.rest.serializers import StrictSerializer

PASSWORD: dict[str, Any] = {"max_length": 256, "trim_whitespace": False, "style": {"input_type": "password"}}
END: dict[str, Any] = {"required": False, "allow_null": True, "default": None, "help_text": "Null: no end."}
USER_FIELDS = ("id", "email", "is_active", "is_superuser", "is_verified", "role", "deleted_at")


def not_past(moment: datetime | None) -> None:
    """Raises ValidationError for an end that has come already."""
    if moment is not None and moment <= timezone.now():
        raise serializers.ValidationError("This is past; give a time to come, with its zone.")


class UserSerializer(serializers.ModelSerializer[User]):
    """A person who logs in."""

    is_superuser = serializers.BooleanField(read_only=True, help_text="Is an administrator and may log in.")

    class Meta:
        model = User
        fields: tuple[str, ...] = USER_FIELDS
        read_only_fields = USER_FIELDS


class UserChangeSerializer(StrictSerializer):
    """What an administrator may change in a user."""

    email = serializers.EmailField(required=False, max_length=254)
    role = serializers.ChoiceField(choices=Role.choices, required=False)
    is_active = serializers.BooleanField(required=False)
    is_verified = serializers.BooleanField(required=False)
    id = serializers.UUIDField(read_only=True)
    is_superuser = serializers.BooleanField(read_only=True)
    deleted_at = serializers.DateTimeField(read_only=True)


class OwnChangeSerializer(StrictSerializer):
    """What a user may change in himself; his password is asked for."""

    email = serializers.EmailField(required=False, max_length=254)
    password = serializers.CharField(required=False, write_only=True, **PASSWORD)
    current_password = serializers.CharField(write_only=True, **PASSWORD)
    id = serializers.UUIDField(read_only=True)
    role = serializers.CharField(read_only=True)
    is_active = serializers.BooleanField(read_only=True)
    is_superuser = serializers.BooleanField(read_only=True)
    is_verified = serializers.BooleanField(read_only=True)
    deleted_at = serializers.DateTimeField(read_only=True)


class RegistrationSerializer(StrictSerializer):
    email = serializers.EmailField(max_length=254)
    password = serializers.CharField(write_only=True, **PASSWORD)
    invitation = serializers.CharField(required=False, max_length=1000, help_text="The code from an invitation.")
    id = serializers.UUIDField(read_only=True)
    role = serializers.CharField(read_only=True)
    is_active = serializers.BooleanField(read_only=True)
    is_superuser = serializers.BooleanField(read_only=True)
    is_verified = serializers.BooleanField(read_only=True)
    deleted_at = serializers.DateTimeField(read_only=True)


class LogInSerializer(StrictSerializer):
    """The password grant of OAuth 2 (RFC 6749, section 4.3.2), of which only the first two fields count."""

    username = serializers.CharField(max_length=254, help_text="The e-mail.")
    password = serializers.CharField(write_only=True, **PASSWORD)
    grant_type = serializers.CharField(required=False, allow_blank=True)
    scope = serializers.CharField(required=False, allow_blank=True)
    client_id = serializers.CharField(required=False, allow_blank=True)
    client_secret = serializers.CharField(required=False, allow_blank=True, write_only=True)


class TokenPairSerializer(serializers.Serializer[Any]):
    access_token = serializers.CharField(help_text="For `Authorization: Bearer …`, during an hour.")
    token_type = serializers.CharField(default="bearer")
    refresh_token = serializers.CharField(help_text="Good once, for new tokens.")


class RefreshSerializer(StrictSerializer):
    refresh_token = serializers.CharField(max_length=4000)


class AddressSerializer(StrictSerializer):
    email = serializers.EmailField(max_length=254)


class InvitationSerializer(serializers.Serializer[Any]):
    email = serializers.EmailField()
    invitation = serializers.CharField(help_text="Good for a week. It was also sent to the address.")


class CodeSerializer(StrictSerializer):
    token = serializers.CharField(max_length=1000, help_text="The code from the mail.")


class NewPasswordSerializer(CodeSerializer):
    password = serializers.CharField(write_only=True, **PASSWORD)


class ApiTokenSerializer(serializers.ModelSerializer[ApiToken]):
    """A personal token, without its text."""

    class Meta:
        model = ApiToken
        fields: tuple[str, ...] = ("id", "name", "hint", "read_only", "created_at", "expires_at", "last_used_at")
        read_only_fields = fields


class NewApiTokenSerializer(StrictSerializer):
    name = serializers.CharField(max_length=100)
    read_only = serializers.BooleanField(default=True)  # type: ignore[assignment]  # this one is a field
    expires_at = serializers.DateTimeField(validators=[not_past], **END)


class MadeApiTokenSerializer(ApiTokenSerializer):
    """A new token, with its text, which is not shown again."""

    token = serializers.CharField()

    class Meta(ApiTokenSerializer.Meta):
        fields = (*ApiTokenSerializer.Meta.fields, "token")
        read_only_fields = fields


class ContainerSerializer(ConfiguredSerializer):
    def validate_name(self, name: str) -> str:
        """Letter case does not count, as the database has it."""
        model, mine = self.Meta.model, self.instance.pk if self.instance else None
        if model.objects.alive().filter(name__iexact=name.strip()).exclude(pk=mine).exists():
            raise serializers.ValidationError(f"There is another {model._meta.verbose_name} called so.")
        return name.strip()


class GroupSerializer(ContainerSerializer):
    """Users who belong together."""

    class Meta(ConfiguredSerializer.Meta):
        model = Group
        fields = ("id", "name", "description", "created_at", "updated_at", "deleted_at")


class ProjectSerializer(ContainerSerializer):
    """A piece of work, shared by users and by whole groups."""

    class Meta(ConfiguredSerializer.Meta):
        model = Project
        fields = ("id", "name", "description", "created_at", "updated_at", "deleted_at")


class MeSerializer(UserSerializer):
    """Oneself, with one's groups, and the projects one is in, through groups too."""

    groups = GroupSerializer(many=True, read_only=True)
    projects = ProjectSerializer(many=True, read_only=True)

    class Meta(UserSerializer.Meta):
        fields = (*USER_FIELDS, "groups", "projects")


class GroupMemberSerializer(serializers.ModelSerializer[GroupMembership]):
    group_id = serializers.UUIDField(read_only=True)
    user_id = serializers.UUIDField(read_only=True)
    email = serializers.EmailField(source="user.email", read_only=True)

    class Meta:
        model = GroupMembership
        fields = ("group_id", "user_id", "email")


class NewGroupMemberSerializer(StrictSerializer):
    user_id = serializers.UUIDField()


class ProjectMemberSerializer(serializers.ModelSerializer[ProjectMembership]):
    project_id = serializers.UUIDField(read_only=True)
    member_type = serializers.ChoiceField(choices=["user", "group"], read_only=True)
    member_id = serializers.UUIDField(read_only=True, help_text="The user's id, or the group's.")
    email = serializers.EmailField(
        source="user.email", default=None, read_only=True, allow_null=True, help_text="Null for a group."
    )

    class Meta:
        model = ProjectMembership
        fields = ("id", "project_id", "member_type", "member_id", "email")


class NewProjectMemberSerializer(StrictSerializer):
    member_type = serializers.ChoiceField(choices=["user", "group"])
    member_id = serializers.UUIDField()
