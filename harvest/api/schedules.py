"""Schedules: when an instrument is harvested, and to which storage."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from access.api.authentication import acting
from access.api.resources import ConfiguredViewSet, described
from harvest import runs
from harvest.api.serializers import HarvestScheduleSerializer
from harvest.api.starting import StartedRunSerializer, start
from harvest.models import HarvestSchedule
from streamweave.lib import cron
from streamweave.lib.rest.errors import Conflict
from streamweave.lib.rest.schema import problems

PREVIEWED, PREVIEWED_AT_MOST = 5, 100


class PreviewSerializer(serializers.Serializer[Any]):
    """When the schedule is due next, in UTC, whether or not it is enabled."""

    schedule_id = serializers.UUIDField()
    cron_expression = serializers.CharField()
    timezone = serializers.CharField()
    in_words = serializers.CharField(help_text="The cron expression in English.")
    active = serializers.BooleanField(help_text="Whether it, its instrument and its storage are enabled.")
    next_runs = serializers.ListField(child=serializers.DateTimeField())


@described("schedule", "schedules", HarvestScheduleSerializer)
class ScheduleViewSet(ConfiguredViewSet):
    """Schedules. Deleting one stops it; its runs stay."""

    queryset = HarvestSchedule.objects.select_related("instrument", "default_storage_location")
    serializer_class = HarvestScheduleSerializer

    @extend_schema(
        operation_id="trigger_schedule",
        tags=["schedules"],
        request=None,
        responses={200: StartedRunSerializer, **problems(404, 409)},
    )
    def trigger(self, request: Request, pk: str) -> Response:
        """Harvest by it now, or right after the run that is under way. If one is queued already, that is the answer."""
        schedule = self.found(pk)
        if why_not := runs.obstacle(schedule):
            raise Conflict(why_not)
        return Response(StartedRunSerializer(start([schedule], by=acting(request))[0]).data)

    @extend_schema(
        operation_id="preview_schedule",
        tags=["schedules"],
        parameters=[
            OpenApiParameter(
                "count",
                {"type": "integer", "minimum": 1, "maximum": PREVIEWED_AT_MOST, "default": PREVIEWED},
                description="How many times.",
            )
        ],
        responses={200: PreviewSerializer, **problems(400, 404)},
    )
    def preview(self, request: Request, pk: str) -> Response:
        """When it is due next."""
        count = _count(request.query_params.get("count", str(PREVIEWED)))
        schedule = self.found(pk)
        told = {
            "schedule_id": schedule.pk,
            "cron_expression": schedule.cron_expression,
            "timezone": schedule.timezone,
            "in_words": cron.explain(schedule.cron_expression),
            "active": HarvestSchedule.objects.active().filter(pk=schedule.pk).exists(),
            "next_runs": cron.next_slots(schedule.cron_expression, schedule.timezone, timezone.now(), count),
        }
        return Response(PreviewSerializer(told).data)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 3 or not 1 <= int(text) <= PREVIEWED_AT_MOST:
        raise ValidationError({"count": [f"Give a whole number from 1 to {PREVIEWED_AT_MOST}."]})
    return int(text)
