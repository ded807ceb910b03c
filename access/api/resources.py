"""What the resources that administrators set up have in common: groups, projects, equipment, schedules, hooks.

They are listed in order of creation, deleted softly and restored. Each change is one transaction on a locked row, with
its audit event in it, and may be made to depend on what the client has seen (`streamweave.lib.rest.preconditions`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import IntegrityError, models, transaction
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import status, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from access.api.authentication import acting
from access.audit import changing, record_change, snapshot
from streamweave.lib.models import refuse_taken_name
from streamweave.lib.rest.errors import Conflict
from streamweave.lib.rest.preconditions import ETAG, IF_MATCH, etag_of, refuse_stale
from streamweave.lib.rest.query import said_true
from streamweave.lib.rest.schema import problems

ONE: dict[str, Any] = {"get": "retrieve", "patch": "partial_update", "delete": "destroy"}
ALL: dict[str, Any] = {"get": "list", "post": "create"}

INCLUDE_DELETED = OpenApiParameter("include_deleted", bool, description="Whether to tell of what is deleted as well.")


def find(rows: models.QuerySet[Any], pk: str) -> Any:
    """The one of `rows` with the id `pk`. Raises NotFound, the same for what is no id at all."""
    model = rows.model
    try:
        return rows.get(pk=model._meta.pk.to_python(pk))
    except (model.DoesNotExist, DjangoValidationError):
        raise NotFound(f"{str(model._meta.verbose_name).capitalize()} not found") from None


@contextmanager
def writing() -> Iterator[None]:
    """One transaction; what a constraint of the database refuses after our own checks is a Conflict."""
    try:
        with transaction.atomic():
            yield
    except IntegrityError as error:
        raise Conflict("Somebody else changed something at the same moment. Look again, then repeat it.") from error


def locked(rows: models.QuerySet[Any], pk: str, request: Request) -> Any:
    """The one of `rows` with the id `pk`, locked until the transaction ends. Raises NotFound, PreconditionFailed."""
    row = find(rows.select_for_update(of=("self",)), pk)
    refuse_stale(request, etag_of(row))
    return row


def tagged(told: Any, row: Any, status_code: int = status.HTTP_200_OK) -> Response:
    """The answer that tells `told` of `row`, with its ETag."""
    return Response(told, status_code, headers={"ETag": etag_of(row)})


class ConfiguredViewSet(viewsets.GenericViewSet[Any]):
    """Rows of a SoftDeletedModel, by a ConfiguredSerializer."""

    queryset: Any
    ordering = ("created_at", "id")

    def list(self, request: Request) -> Response:
        page = self.paginate_queryset(self._rows(request))
        return self.get_paginated_response(self.get_serializer(page, many=True).data)

    def create(self, request: Request) -> Response:
        serializer = self.get_serializer(data=request.data)
        with writing():
            serializer.is_valid(raise_exception=True)
            row = self._saved(serializer)
            self.record_change("created", row, before=None)
        return self.answer(row, status.HTTP_201_CREATED)

    def retrieve(self, request: Request, pk: str) -> Response:
        return self.answer(find(self._rows(request), pk))

    def partial_update(self, request: Request, pk: str) -> Response:
        data = request.data
        with writing():
            row = self.locked(pk)
            before = snapshot(row)
            serializer = self.get_serializer(row, data=data, partial=True)
            serializer.is_valid(raise_exception=True)
            row = self._saved(serializer)
            self.record_change("changed", row, before=before)
        return self.answer(row)

    def destroy(self, request: Request, pk: str) -> Response:
        with writing():
            row = self.locked(pk)
            self.check_deletable(row)
            with self.changing(row, "deleted"):
                row.soft_delete()
        return Response(status=status.HTTP_204_NO_CONTENT)

    @action(methods=["post"], detail=True)
    def restore(self, request: Request, pk: str) -> Response:
        with writing():
            row = self.locked(pk, deleted=True)
            if row.deleted_at is not None:
                self.check_restorable(row)
                with self.changing(row, "restored"):
                    row.restore()
        return self.answer(row)

    def check_deletable(self, row: Any) -> None:
        """Raises Conflict where something stands against deleting `row`."""

    def check_restorable(self, row: Any) -> None:
        """Raises Conflict where something stands against restoring `row`."""

    # ------------------------------------------------------------------------------------------- for the actions

    def found(self, pk: str) -> Any:
        """The row, which is not deleted. Raises NotFound."""
        return find(self.queryset.all().alive(), pk)

    def locked(self, pk: str, *, deleted: bool = False) -> Any:
        """The row, locked until the transaction ends. Raises NotFound, PreconditionFailed."""
        rows = self.queryset.all()
        return locked(rows if deleted else rows.alive(), pk, self.request)

    def answer(self, row: Any, status_code: int = status.HTTP_200_OK) -> Response:
        return tagged(self.get_serializer(row).data, row, status_code)

    def changing(self, row: Any, done: str) -> AbstractContextManager[None]:
        """A block whose change of `row` is an audit event."""
        return changing(f"{row._meta.model_name}.{done}", by=acting(self.request), on=row)

    def record_change(self, done: str, row: Any, *, before: Mapping[str, Any] | None) -> None:
        what = f"{row._meta.model_name}.{done}"
        record_change(what, by=acting(self.request), on=row, before=before, after=snapshot(row))

    def _saved(self, serializer: Any) -> Any:
        row = serializer.save()
        row.refresh_from_db(fields=["updated_at"])  # what follows from the change may have moved it once more
        return row

    def _rows(self, request: Request) -> Any:
        rows = self.queryset.all()
        return rows if said_true(request, "include_deleted") else rows.alive()


class NamedViewSet(ConfiguredViewSet):
    """The same for rows whose names are unique among those that are not deleted."""

    def check_restorable(self, row: Any) -> None:
        try:
            refuse_taken_name(row, row.name)
        except DjangoValidationError as error:
            raise Conflict(f"{error.message} Rename that one first.") from None


def described(one: str, many: str, serializer: Any) -> Any:
    """The OpenAPI descriptions of a ConfiguredViewSet's six actions, as a decorator of the class."""
    tags, kept = [many.replace("_", " ")], {200: serializer}
    return extend_schema_view(
        list=extend_schema(
            operation_id=f"list_{many}",
            tags=tags,
            parameters=[INCLUDE_DELETED],
            responses={200: serializer(many=True), **problems(400)},
        ),
        create=extend_schema(
            operation_id=f"create_{one}",
            tags=tags,
            parameters=[ETAG],
            responses={201: serializer, **problems(400, 409)},
        ),
        retrieve=extend_schema(
            operation_id=f"get_{one}",
            tags=tags,
            parameters=[INCLUDE_DELETED, ETAG],
            responses={**kept, **problems(400, 404)},
        ),
        partial_update=extend_schema(
            operation_id=f"update_{one}",
            tags=tags,
            parameters=[IF_MATCH, ETAG],
            responses={**kept, **problems(400, 404, 409, 412)},
        ),
        destroy=extend_schema(
            operation_id=f"delete_{one}",
            tags=tags,
            parameters=[IF_MATCH],
            responses={204: None, **problems(404, 409, 412)},
        ),
        restore=extend_schema(
            operation_id=f"restore_{one}",
            tags=tags,
            request=None,
            parameters=[IF_MATCH, ETAG],
            responses={**kept, **problems(404, 409, 412)},
        ),
    )
