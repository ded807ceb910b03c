"""The deep health, for administrators; /health is for everybody and asks nothing."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from harvest.health import health
from streamweave.lib.rest.schema import problems


class FindingSerializer(serializers.Serializer[Any]):
    ok = serializers.BooleanField()
    detail = serializers.CharField()
    latency_ms = serializers.FloatField(allow_null=True)


class StorageFindingSerializer(FindingSerializer):
    id = serializers.UUIDField()
    name = serializers.CharField()
    type = serializers.CharField()


class HealthSerializer(serializers.Serializer[Any]):
    """How everything is. `status` is ok where every part is."""

    status = serializers.ChoiceField(["ok", "degraded"])
    database = FindingSerializer()
    broker = FindingSerializer()
    workers = FindingSerializer()
    beat = FindingSerializer()
    storages = StorageFindingSerializer(many=True)


class HealthView(APIView):
    """Database, broker, workers, beat and each enabled storage, asked just now, for a few seconds at most."""

    @extend_schema(operation_id="get_health", tags=["health"], responses={200: HealthSerializer, **problems(503)})
    def get(self, request: Request) -> Response:
        found = health()
        parts = {name: getattr(found, name) for name in ("database", "broker", "workers", "beat")}
        storages = [
            {"id": location.pk, "name": location.name, "type": location.type, "ok": finding.ok,
             "detail": finding.detail, "latency_ms": finding.latency_ms}
            for location, finding in found.storages.items()
        ]  # fmt: skip
        told = {"status": "ok" if found.ok else "degraded", **parts, "storages": storages}
        return Response(HealthSerializer(told).data)
