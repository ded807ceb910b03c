"""A user asks for an instrument to be harvested; an administrator answers."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import generics, serializers
from rest_framework.permissions import SAFE_METHODS, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from access import instrument_requests
from access.api.auth import given
from access.api.authentication import acting
from access.api.resources import find, locked, tagged, writing
from access.models import InstrumentRequest
from streamweave.lib.rest.errors import Conflict
from streamweave.lib.rest.permissions import IsAdministrator
from streamweave.lib.rest.preconditions import ETAG, IF_MATCH
from streamweave.lib.rest.schema import problems
from streamweave.lib.rest.serializers import StrictSerializer

Status = InstrumentRequest.Status


class RequestForInstrumentSerializer(StrictSerializer, serializers.ModelSerializer[InstrumentRequest]):
    user_id = serializers.UUIDField(read_only=True)
    email = serializers.EmailField(source="user.email", read_only=True, help_text="Of the user who asks.")
    answered_by_id = serializers.UUIDField(read_only=True, allow_null=True)

    class Meta:
        model = InstrumentRequest
        fields = (
            "id",
            "user_id",
            "email",
            "name",
            "location",
            "justification",
            "status",
            "answer",
            "answered_by_id",
            "answered_at",
            "created_at",
            "updated_at",
        )
        read_only_fields = ("id", "status", "answer", "answered_at", "created_at", "updated_at")


class AnswerSerializer(StrictSerializer):
    status = serializers.ChoiceField(choices=[Status.APPROVED.value, Status.REJECTED.value])
    answer = serializers.CharField(required=False, allow_null=True, allow_blank=True, max_length=5000)


@extend_schema_view(
    get=extend_schema(
        operation_id="list_instrument_requests",
        summary="List requests for instruments",
        description="Newest first: one's own; all of them for an administrator.",
        responses={200: RequestForInstrumentSerializer(many=True), **problems(400)},
        tags=["instrument requests"],
    ),
    post=extend_schema(
        operation_id="create_instrument_request",
        summary="Ask for an instrument",
        responses={201: RequestForInstrumentSerializer, **problems(400)},
        tags=["instrument requests"],
    ),
)
class InstrumentRequestList(generics.ListCreateAPIView[InstrumentRequest]):
    serializer_class = RequestForInstrumentSerializer
    permission_classes = (IsAuthenticated,)
    queryset = InstrumentRequest.objects.none()
    ordering = ("-created_at", "-id")

    def get_queryset(self) -> QuerySet[InstrumentRequest]:
        return instrument_requests.visible_requests(acting(self.request))

    def perform_create(self, serializer: Any) -> None:
        serializer.instance = instrument_requests.ask(user=acting(self.request), **serializer.validated_data)


class InstrumentRequestDetail(generics.GenericAPIView[InstrumentRequest]):
    serializer_class = RequestForInstrumentSerializer
    queryset = InstrumentRequest.objects.none()
    pagination_class = None

    def get_permissions(self) -> list[Any]:
        return [IsAuthenticated()] if self.request.method in SAFE_METHODS else [IsAdministrator()]

    @extend_schema(
        operation_id="get_instrument_request",
        summary="Get a request for an instrument",
        parameters=[ETAG],
        responses={200: RequestForInstrumentSerializer, **problems(404)},
        tags=["instrument requests"],
    )
    def get(self, request: Request, pk: str) -> Response:
        one = find(instrument_requests.visible_requests(acting(request)), pk)
        return tagged(self.get_serializer(one).data, one)

    @extend_schema(
        operation_id="answer_instrument_request",
        summary="Approve or reject a request for an instrument",
        description="For administrators. A request is answered once.",
        parameters=[IF_MATCH, ETAG],
        request=AnswerSerializer,
        responses={200: RequestForInstrumentSerializer, **problems(400, 404, 409, 412)},
        tags=["instrument requests"],
    )
    def patch(self, request: Request, pk: str) -> Response:
        wanted = given(AnswerSerializer, request)
        with writing():
            one = locked(instrument_requests.visible_requests(acting(request)), pk, request)
            try:
                one = instrument_requests.answer(one, by=acting(request), **wanted)
            except instrument_requests.AnsweredAlreadyError as error:
                raise Conflict(str(error)) from None
        return tagged(self.get_serializer(one).data, one)
