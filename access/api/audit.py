"""The audit log, for administrators."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import generics, serializers

from access.models import AuditEvent
from streamweave.lib.rest.query import QuerySerializer
from streamweave.lib.rest.schema import problems


class AuditEventSerializer(serializers.ModelSerializer[AuditEvent]):
    actor_id = serializers.UUIDField(allow_null=True, read_only=True, help_text="Null: the product itself, or nobody.")
    actor_email = serializers.EmailField(allow_null=True, read_only=True)
    detail = serializers.DictField(read_only=True, help_text="For a change its `before` and `after`.")
    sequence = serializers.IntegerField(
        min_value=1,
        max_value=2**63 - 1,
        allow_null=True,
        read_only=True,
        help_text="Its number in the sealed log; null as long as it is not sealed.",
    )

    class Meta:
        model = AuditEvent
        fields = (
            "id",
            "at",
            "actor_id",
            "actor_email",
            "action",
            "object_type",
            "object_id",
            "detail",
            "ip",
            "sequence",
        )
        read_only_fields = fields


class AuditFilters(QuerySerializer):
    """What `?…` may ask of the log."""

    actor_id = serializers.UUIDField(required=False, help_text="Only what this user did.")
    actor_email = serializers.CharField(required=False, help_text="Only what the user with this address did.")
    action = serializers.CharField(
        required=False, help_text="Only this action, such as `grant.added`; `grant.` for all that begin so."
    )
    object_type = serializers.CharField(required=False, help_text="Only about this kind, such as `access.group`.")
    object_id = serializers.CharField(required=False, help_text="Only about the object with this id.")
    since = serializers.DateTimeField(required=False, help_text="Not before this time.")
    until = serializers.DateTimeField(required=False, help_text="Before this time.")


@extend_schema_view(
    get=extend_schema(
        operation_id="list_audit_events",
        summary="List audit events",
        description="Who did what to what, newest first.",
        parameters=[AuditFilters],
        responses={200: AuditEventSerializer(many=True), **problems(400)},
        tags=["audit"],
    )
)
class AuditEventList(generics.ListAPIView[AuditEvent]):
    serializer_class = AuditEventSerializer
    ordering = ("-at", "-id")
    ordering_fields = ("at",)

    def get_queryset(self) -> QuerySet[Any]:
        return AuditEvent.objects.matching(**AuditFilters.read(self.request)).select_related("actor", "seal")
