"""Runs: what was harvested when, how far it is, and what went wrong."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from access.api.authentication import acting
from access.api.resources import find, writing
from access.audit import record
from harvest import reports, runs, tasks
from harvest.api.serializers import CauseSerializer, RunErrorSerializer, RunFileSerializer, RunSerializer
from harvest.models import HarvestRun, RunStatus, Status, Trigger
from streamweave.lib.rest.errors import Conflict
from streamweave.lib.rest.query import QuerySerializer
from streamweave.lib.rest.schema import problems
from streamweave.lib.rest.serializers import BigCountField


class RunFilters(QuerySerializer):
    """What `?…` may ask of the runs."""

    instrument_id = serializers.UUIDField(required=False)
    storage_location_id = serializers.UUIDField(required=False)
    schedule_id = serializers.UUIDField(required=False)
    status = serializers.ChoiceField(RunStatus.choices, required=False)
    trigger = serializers.ChoiceField(Trigger.choices, required=False)
    since = serializers.DateTimeField(required=False, help_text="Not made before this time.")
    until = serializers.DateTimeField(required=False, help_text="Made before this time.")


class RunFileFilters(QuerySerializer):
    status = serializers.ChoiceField(Status.choices, required=False)


class RunDetailSerializer(RunSerializer):
    """A run with the causes of what went wrong, waits or was left out; the most frequent first."""

    problems = serializers.SerializerMethodField()
    other_ends = serializers.SerializerMethodField()

    class Meta(RunSerializer.Meta):
        fields = (*RunSerializer.Meta.fields, "problems", "other_ends")
        read_only_fields = fields

    @extend_schema_field(CauseSerializer(many=True))
    def get_problems(self, run: HarvestRun) -> Any:
        return CauseSerializer(reports.problems(run), many=True).data

    @extend_schema_field(CauseSerializer(many=True))
    def get_other_ends(self, run: HarvestRun) -> Any:
        return CauseSerializer(reports.other_ends(run), many=True).data


class RetriedSerializer(serializers.Serializer[Any]):
    run_id = serializers.UUIDField()
    files = BigCountField(help_text="How many files go on their way again.")


class RunViewSet(viewsets.GenericViewSet[HarvestRun]):
    queryset = HarvestRun.objects.all()
    serializer_class = RunSerializer
    ordering: tuple[str, ...] = ("-created_at", "-id")

    @extend_schema(
        operation_id="list_runs",
        tags=["runs"],
        parameters=[RunFilters],
        responses={200: RunSerializer(many=True), **problems(400)},
    )
    def list(self, request: Request) -> Response:
        """The runs, newest first."""
        asked = RunFilters.read(request)
        since, until = asked.pop("since", None), asked.pop("until", None)
        chosen = HarvestRun.objects.filter(**asked)
        if since:
            chosen = chosen.filter(created_at__gte=since)
        if until:
            chosen = chosen.filter(created_at__lt=until)
        return self._page(chosen, RunSerializer)

    @extend_schema(operation_id="get_run", tags=["runs"], responses={200: RunDetailSerializer, **problems(404)})
    def retrieve(self, request: Request, pk: str) -> Response:
        """One run, with what went wrong in it grouped by cause."""
        return Response(RunDetailSerializer(self._found(pk)).data)

    @extend_schema(
        operation_id="cancel_run",
        tags=["runs"],
        request=None,
        responses={200: RunSerializer, **problems(404, 409)},
    )
    def cancel(self, request: Request, pk: str) -> Response:
        """Cancel a queued or running one. Files that have no verified copy yet stop where they are."""
        run = self._found(pk)
        if not runs.cancel(run, by=acting(request)):
            raise Conflict(f"It has ended already; it is {run.get_status_display().lower()}.")
        return Response(RunSerializer(run).data)

    @extend_schema(
        operation_id="retry_run",
        tags=["runs"],
        request=None,
        responses={200: RetriedSerializer, **problems(404)},
    )
    def retry(self, request: Request, pk: str) -> Response:
        """Send its failed, waiting and cancelled files on their way again now."""
        run = self._found(pk)
        with writing():
            count = tasks.retry(run.transfers.all())
            record("harvestrun.retried", by=acting(request), on=run, detail={"files": count})
        return Response(RetriedSerializer({"run_id": run.pk, "files": count}).data)

    @extend_schema(
        operation_id="list_run_files",
        tags=["runs"],
        parameters=[RunFileFilters],
        responses={200: RunFileSerializer(many=True), **problems(400, 404)},
    )
    def files(self, request: Request, pk: str) -> Response:
        """What became of each of its files, newest first. A file that a later run took on belongs to that one."""
        asked = RunFileFilters.read(request)
        chosen = self._found(pk).transfers.select_related("record", "version")
        return self._page(chosen.with_status(asked["status"]) if asked else chosen, RunFileSerializer)

    @extend_schema(
        operation_id="list_run_errors",
        tags=["runs"],
        responses={200: RunErrorSerializer(many=True), **problems(400, 404)},
    )
    def errors(self, request: Request, pk: str) -> Response:
        """The folders and names on the share that it could not read, in the order in which it met them."""
        self.ordering = ("id",)
        return self._page(self._found(pk).errors.all(), RunErrorSerializer)

    def _found(self, pk: str) -> HarvestRun:
        return find(HarvestRun.objects.select_related("instrument", "storage_location"), pk)

    def _page(self, rows: QuerySet[Any], serializer: type[serializers.BaseSerializer[Any]]) -> Response:
        return self.get_paginated_response(serializer(self.paginate_queryset(rows), many=True).data)
