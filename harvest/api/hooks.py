"""Hooks. Their serializers are in hooks; here is what needs to know users and files."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from access.api.resources import ConfiguredViewSet, described
from harvest.hook_trials import NoSuchFilesError, try_hook
from hooks.api.serializers import HookSerializer
from hooks.decisions import Verdict
from hooks.models import HookConfig
from streamweave.lib.rest.schema import problems
from streamweave.lib.rest.serializers import StrictSerializer

TRIED_AT_MOST = 50


class TrySerializer(StrictSerializer):
    """Which files to try the hook on: the newest ones, or those with these ids."""

    limit = serializers.IntegerField(min_value=1, max_value=TRIED_AT_MOST, default=10)
    file_ids = serializers.ListField(
        child=serializers.UUIDField(), required=False, allow_empty=False, max_length=TRIED_AT_MOST
    )


class HookGrantSerializer(serializers.Serializer[Any]):
    grantee_type = serializers.CharField()
    grantee = serializers.CharField()


class TrialSerializer(serializers.Serializer[Any]):
    """What the hook would answer about one file; null or empty where it says nothing."""

    file_id = serializers.UUIDField(source="transfer.record_id")
    source_path = serializers.CharField(source="transfer.record.source_path")
    verdict = serializers.ChoiceField([word.value for word in Verdict], source="before.verdict", allow_null=True)
    reason = serializers.CharField(source="before.reason", allow_null=True)
    storage = serializers.CharField(source="before.storage", allow_null=True)
    sub_path = serializers.CharField(source="before.sub_path", allow_null=True)
    metadata = serializers.DictField(source="after.metadata")
    grants = HookGrantSerializer(source="after.grants", many=True)
    problems = serializers.ListField(source="after.problems", child=serializers.CharField())


@described("hook", "hooks", HookSerializer)
class HookViewSet(ConfiguredViewSet):
    """Hooks: rules about files. As a script is a program on this machine, only superusers may say which; all
    administrators are."""

    queryset = HookConfig.objects.all()
    serializer_class = HookSerializer

    @extend_schema(
        operation_id="try_hook",
        tags=["hooks"],
        request=TrySerializer,
        responses={200: TrialSerializer(many=True), **problems(400, 404)},
    )
    def try_out(self, request: Request, pk: str) -> Response:
        """Ask it about files that are here already. Nothing is written, moved or granted."""
        hook = self.found(pk)
        asked = TrySerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        try:
            trials = try_hook(hook, **asked.validated_data)
        except NoSuchFilesError as error:
            raise ValidationError({"file_ids": [f"It cannot be tried on: {error}"]}) from None
        return Response(TrialSerializer(trials, many=True).data)
