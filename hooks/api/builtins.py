"""The hooks that come with the product."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from hooks.api.serializers import BuiltinSerializer
from hooks.builtins import BUILTINS
from streamweave.lib.rest.schema import problems


class BuiltinsView(APIView):
    """The builtins with the schemas of their configs, for forms and checks on the client's side."""

    @extend_schema(
        operation_id="list_builtin_hooks",
        tags=["hooks"],
        responses={200: BuiltinSerializer(many=True), **problems()},
    )
    def get(self, request: Request) -> Response:
        builtins = [
            {"name": name, "trigger": builtin.trigger, "config_schema": builtin.config_schema}
            for name, builtin in BUILTINS.items()
        ]
        return Response(BuiltinSerializer(builtins, many=True).data)
