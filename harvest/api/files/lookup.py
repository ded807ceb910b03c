"""What the views of files have in common: who may ask, and finding the file asked for."""

from __future__ import annotations

import uuid
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework.exceptions import NotFound
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from access import policy
from harvest.models import FileRecord
from streamweave.lib.rest.schema import problems

FILE_ID = OpenApiParameter("file_id", OpenApiTypes.UUID, OpenApiParameter.PATH)


class LoggedIn(BasePermission):
    """Whoever may log in; what they see is theirs to see."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        return policy.may_log_in(request.user)


def as_id(text: str) -> uuid.UUID | None:
    """The id that `text` is, or None."""
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def visible_file(user: Any, file_id: str, *, to_change: bool = False) -> FileRecord:
    """The file that `user` asks for, and `to_change` it: locked until the transaction ends. Raises NotFound, the same
    whether it does not exist, is not for him to see, or is no id at all."""
    pk = as_id(file_id)
    files = FileRecord.objects.visible_to(user)
    files = files.select_for_update(of=("self",)) if to_change else files
    file = None if pk is None else files.filter(pk=pk).first()
    if file is None:
        raise NotFound("File not found")
    found: FileRecord = file
    return found


def open_problems(*statuses: int) -> dict[int, Any]:
    """`problems` of a view that is open to every user."""
    return {status: problem for status, problem in problems(*statuses).items() if status != 403}
