"""Instruments, storage locations and the accounts to log in with."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from access.api.authentication import acting
from access.api.resources import NamedViewSet, described, writing
from harvest import runs
from harvest.api.serializers import (
    InstrumentSerializer,
    ProbeSerializer,
    ServiceAccountSerializer,
    StorageLocationSerializer,
)
from harvest.api.starting import StartedRunSerializer, start
from harvest.models import HarvestSchedule, Instrument, ServiceAccount, StorageLocation
from harvest.probes import probe_instrument, probe_storage
from harvest.storage.base import Check
from streamweave.lib.rest.errors import Conflict
from streamweave.lib.rest.preconditions import ETAG, IF_MATCH
from streamweave.lib.rest.schema import problems

NAMED_AT_MOST = 5


@described("service_account", "service_accounts", ServiceAccountSerializer)
class ServiceAccountViewSet(NamedViewSet):
    """The accounts with which we log in to instruments' shares. A password is set and never told."""

    queryset = ServiceAccount.objects.all()
    serializer_class = ServiceAccountSerializer

    def check_deletable(self, row: ServiceAccount) -> None:
        users = list(row.instruments.alive().values_list("name", flat=True)[: NAMED_AT_MOST + 1])
        if users:
            more = ", …" if len(users) > NAMED_AT_MOST else ""
            names = ", ".join(users[:NAMED_AT_MOST])
            raise Conflict(f"Instruments log in with it: {names}{more}. Give them another account first.")


@described("instrument", "instruments", InstrumentSerializer)
class InstrumentViewSet(NamedViewSet):
    """The instruments and their shares. Deleting one stops its schedules; its files stay."""

    queryset = Instrument.objects.all()
    serializer_class = InstrumentSerializer

    @extend_schema(
        operation_id="harvest_instrument",
        tags=["instruments"],
        request=None,
        responses={200: StartedRunSerializer(many=True), **problems(404, 409)},
    )
    def harvest(self, request: Request, pk: str) -> Response:
        """Harvest it now, by each of its enabled schedules whose storage is enabled too."""
        instrument = self.found(pk)
        enabled = HarvestSchedule.objects.alive().filter(instrument=instrument, enabled=True)
        schedules = list(enabled.select_related("instrument", "default_storage_location").order_by("created_at"))
        obstacles = {schedule.pk: runs.obstacle(schedule) for schedule in schedules}
        free = [schedule for schedule in schedules if obstacles[schedule.pk] is None]
        if not free:
            none = f"The instrument “{instrument}” has no enabled schedule; make one first."
            raise Conflict(next(iter(obstacles.values()), none))
        return Response(StartedRunSerializer(start(free, by=acting(request)), many=True).data)

    @extend_schema(
        operation_id="test_instrument",
        tags=["instruments"],
        request=None,
        responses={200: ProbeSerializer, **problems(404)},
    )
    def test(self, request: Request, pk: str) -> Response:
        """Try to reach its share, log in and list it. Writes nothing."""
        return probed(probe_instrument(self.found(pk)))

    @extend_schema(
        operation_id="resume_instrument",
        tags=["instruments"],
        parameters=[IF_MATCH, ETAG],
        request=None,
        responses={200: InstrumentSerializer, **problems(404, 412)},
    )
    def resume(self, request: Request, pk: str) -> Response:
        """Harvest it again after a refused log-in had paused it."""
        with writing():
            instrument = self.locked(pk)
            if instrument.paused_at is not None:
                with self.changing(instrument, "resumed"):
                    instrument.resume()
        return self.answer(instrument)


@described("storage_location", "storage_locations", StorageLocationSerializer)
class StorageLocationViewSet(NamedViewSet):
    """The places where copies are kept. Deleting one stops the schedules that lead to it; what is stored stays."""

    queryset = StorageLocation.objects.all()
    serializer_class = StorageLocationSerializer

    @extend_schema(
        operation_id="test_storage_location",
        tags=["storage locations"],
        request=None,
        responses={200: ProbeSerializer, **problems(404)},
    )
    def test(self, request: Request, pk: str) -> Response:
        """Try what a harvest needs of it, on a file of our own that is removed again."""
        return probed(probe_storage(self.found(pk)))


def probed(checks: list[Check]) -> Response:
    return Response(ProbeSerializer({"ok": all(check.ok for check in checks), "checks": checks}).data)
