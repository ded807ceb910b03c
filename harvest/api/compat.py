"""The words of the original StreamWeave that its clients still read: Prefect's names for our schedules and runs.

A deployment is all that harvests one instrument, so its schedules share one `prefect_deployment_id`. A flow run is one
of our runs and has its id. Nothing else in the product knows these words.
"""

from __future__ import annotations

import uuid

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from access.api.resources import find
from harvest.models import HarvestRun, HarvestSchedule, RunStatus
from streamweave.lib.rest.schema import problems

_DEPLOYMENTS = uuid.UUID("5a0e2f5c-9f3b-5c43-8d8c-0d2f6f6a7f11")

STATES = {
    RunStatus.QUEUED: ("SCHEDULED", "Scheduled"),
    RunStatus.RUNNING: ("RUNNING", "Running"),
    RunStatus.COMPLETED: ("COMPLETED", "Completed"),
    RunStatus.COMPLETED_WITH_ERRORS: ("COMPLETED", "CompletedWithErrors"),
    RunStatus.FAILED: ("FAILED", "Failed"),
    RunStatus.CANCELLED: ("CANCELLED", "Cancelled"),
    RunStatus.MISSED: ("CANCELLED", "Missed"),
}
"""How a run's status is called there, as (type, name). A run that came to its end is COMPLETED even where files of it
were skipped or failed, as in the original; the name tells."""


def deployment_id(instrument_id: uuid.UUID) -> uuid.UUID:
    """The same for all schedules of an instrument, whatever becomes of them."""
    return uuid.uuid5(_DEPLOYMENTS, str(instrument_id))


def flow_state(run: HarvestRun) -> dict[str, str]:
    """The run's state in Prefect's words: a `type` of nine that clients wait for, and a `name` for people."""
    kind, name = STATES[RunStatus(run.status)]
    if run.status == RunStatus.RUNNING and run.walked_at is None and run.lease_token is None:
        # Between two attempts at the walk, or about to begin the first.
        kind, name = ("SCHEDULED", "AwaitingRetry") if run.next_attempt_at else ("PENDING", "Pending")
    if run.status == RunStatus.FAILED and run.error_code == "worker_lost":
        kind, name = "CRASHED", "Crashed"
    return {"type": kind, "name": name}


@extend_schema_field(OpenApiTypes.UUID)
class DeploymentIdField(serializers.ReadOnlyField):
    """`prefect_deployment_id` of a schedule."""

    def __init__(self) -> None:
        super().__init__(source="*")

    def to_representation(self, schedule: HarvestSchedule) -> str:
        return str(deployment_id(schedule.instrument_id))


class FlowStateSerializer(serializers.Serializer[dict[str, str]]):
    type = serializers.ChoiceField(["SCHEDULED", "PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "CRASHED"])
    name = serializers.CharField()


class FlowRunSerializer(serializers.Serializer[HarvestRun]):
    id = serializers.UUIDField()
    state = serializers.SerializerMethodField()

    @extend_schema_field(FlowStateSerializer)
    def get_state(self, run: HarvestRun) -> dict[str, str]:
        return flow_state(run)


class FlowRunView(APIView):
    """A run as Prefect would tell of it. Clients of the original ask this until the type is an end."""

    @extend_schema(
        operation_id="get_flow_run", tags=["compatibility"], responses={200: FlowRunSerializer, **problems(404)}
    )
    def get(self, request: Request, pk: str) -> Response:
        return Response(FlowRunSerializer(find(HarvestRun.objects.all(), pk)).data)
