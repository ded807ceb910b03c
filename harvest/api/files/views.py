"""Files and their transfers, for everybody who is logged in: those that they may see."""

from __future__ import annotations

from typing import Any

from django.db.models import Exists, OuterRef, Q
from django.http import HttpResponseBase
from django.utils.cache import get_conditional_response, patch_vary_headers
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework.exceptions import NotFound
from rest_framework.generics import ListAPIView
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from access.api.authentication import acting
from access.api.resources import writing
from harvest.api.files.filters import METADATA, FileConditions, TransferConditions
from harvest.api.files.listing import FileListing, transfers_for
from harvest.api.files.lookup import FILE_ID, LoggedIn, as_id, open_problems, visible_file
from harvest.api.files.ownership import set_owner
from harvest.api.files.serializers import FileSerializer, FileVersionSerializer, TransferSerializer, told
from harvest.models import FileRecord, FileTransfer, FileVersion
from streamweave.lib.rest.permissions import IsAdministrator
from streamweave.lib.rest.preconditions import ETAG, IF_MATCH, etag_of_facts, refuse_stale
from streamweave.lib.rest.schema import problems

IF_NONE_MATCH = OpenApiParameter(
    "If-None-Match", OpenApiTypes.STR, OpenApiParameter.HEADER, description="Answer 304 if this is still its ETag."
)


@extend_schema_view(
    get=extend_schema(
        operation_id="list_files",
        tags=["files"],
        summary="List files",
        description="Those that the user may see, the newest first. All conditions must be met.",
        parameters=[FileConditions, METADATA],
        responses={200: FileSerializer(many=True), **open_problems(400)},
    )
)
class FileList(ListAPIView[FileRecord]):
    permission_classes = (LoggedIn,)
    serializer_class = FileSerializer
    queryset = FileRecord.objects.none()
    ordering = ("-first_discovered_at", "-id")
    ordering_fields = ("first_discovered_at", "source_mtime", "size_bytes", "filename")

    def get_queryset(self) -> Any:
        self.listing = FileListing(self.request.user, FileConditions.read(self.request.query_params))
        return self.listing.files

    def page(self, beyond: Q, ordering: tuple[str, ...], count: int) -> list[FileRecord]:
        return self.listing.page(beyond, ordering, count)


class FileDetail(APIView):
    def get_permissions(self) -> list[BasePermission]:
        return [IsAdministrator()] if self.request.method == "PATCH" else [LoggedIn()]

    @extend_schema(
        operation_id="get_file",
        tags=["files"],
        parameters=[FILE_ID, IF_NONE_MATCH, ETAG],
        responses={200: FileSerializer, 304: None, **open_problems(404)},
    )
    def get(self, request: Request, file_id: str) -> HttpResponseBase:
        return conditional(request, told(visible_file(request.user, file_id)))

    @extend_schema(
        operation_id="update_file",
        tags=["files"],
        description="Administrators give a file an owner, whom a grant of his own lets see it; null takes it away.",
        parameters=[FILE_ID, IF_MATCH, ETAG],
        request=FileSerializer,
        responses={200: FileSerializer, **problems(400, 404, 409, 412)},
    )
    def patch(self, request: Request, file_id: str) -> Response:
        with writing():
            file = visible_file(request.user, file_id, to_change=True)
            refuse_stale(request, etag_of_facts(told(file)))
            change = FileSerializer(data=request.data)
            change.is_valid(raise_exception=True)
            file = set_owner(file, change.validated_data["owner_id"], by=acting(request))
        facts = told(file)
        return Response(facts, headers={"ETag": etag_of_facts(facts)})


@extend_schema_view(
    get=extend_schema(
        operation_id="list_file_versions",
        tags=["files"],
        description="The contents that the file has had, the newest first.",
        parameters=[FILE_ID],
        responses={200: FileVersionSerializer(many=True), **open_problems(400, 404)},
    )
)
class FileVersionList(ListAPIView[FileVersion]):
    permission_classes = (LoggedIn,)
    serializer_class = FileVersionSerializer
    queryset = FileVersion.objects.none()
    ordering = ("-number",)

    def get_queryset(self) -> Any:
        file = visible_file(self.request.user, self.kwargs["file_id"])
        copies = FileTransfer.objects.stored().filter(version=OuterRef("pk"))
        return FileVersion.objects.filter(record=file).annotate(is_downloadable=Exists(copies))


@extend_schema_view(
    get=extend_schema(
        operation_id="list_transfers",
        tags=["transfers"],
        description="The transfers of the files that the user may see, the newest first. All conditions must be met.",
        parameters=[TransferConditions],
        responses={200: TransferSerializer(many=True), **open_problems(400)},
    )
)
class TransferList(ListAPIView[FileTransfer]):
    permission_classes = (LoggedIn,)
    serializer_class = TransferSerializer
    queryset = FileTransfer.objects.none()
    ordering = ("-created_at", "-id")
    ordering_fields = ("created_at",)

    def get_queryset(self) -> Any:
        conditions = TransferConditions.read(self.request.query_params)
        return with_related(transfers_for(self.request.user, conditions))


@extend_schema_view(
    get=extend_schema(
        operation_id="list_file_transfers",
        tags=["files"],
        description="The transfers of one file, the newest first.",
        parameters=[FILE_ID, TransferConditions],
        responses={200: TransferSerializer(many=True), **open_problems(400, 404)},
    )
)
class FileTransferList(TransferList):
    def get_queryset(self) -> Any:
        conditions = TransferConditions.read(self.request.query_params)
        file = visible_file(self.request.user, self.kwargs["file_id"])
        return with_related(conditions.narrow(FileTransfer.objects.filter(record=file)))


class TransferDetail(APIView):
    permission_classes = (LoggedIn,)

    @extend_schema(
        operation_id="get_transfer",
        tags=["transfers"],
        parameters=[OpenApiParameter("transfer_id", OpenApiTypes.UUID, OpenApiParameter.PATH)],
        responses={200: TransferSerializer, **open_problems(404)},
    )
    def get(self, request: Request, transfer_id: str) -> Response:
        pk = as_id(transfer_id)
        seen = FileTransfer.objects.visible_to(request.user)
        transfer = None if pk is None else with_related(seen).filter(pk=pk).first()
        if transfer is None:
            raise NotFound("Transfer not found")
        return Response(TransferSerializer(transfer).data)


def with_related(transfers: Any) -> Any:
    """`transfers` with what TransferSerializer tells of them. That is fetched for the rows of a page only; a join would
    fetch it for all that are sorted."""
    return transfers.prefetch_related("storage_location", "record__instrument")


def conditional(request: Request, facts: dict[str, Any]) -> HttpResponseBase:
    """An answer with an ETag, or 304 where the client has this very one (RFC 9110, section 13.1.2)."""
    etag = etag_of_facts(facts)
    answer = Response(facts)
    response: HttpResponseBase = answer
    if request.accepted_renderer.format == "json":
        response = get_conditional_response(request._request, etag=etag, response=answer) or answer
        response["ETag"] = etag
        response["Cache-Control"] = "private, no-cache"
        patch_vary_headers(response, ("Authorization", "Cookie"))
    return response
