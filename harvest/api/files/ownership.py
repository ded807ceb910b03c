"""Giving a file to its owner."""

from __future__ import annotations

import uuid

from rest_framework.exceptions import ValidationError

from access.audit import record_change
from access.grants import grant_to_owners
from access.models import User
from harvest.models import FileRecord


def set_owner(file: FileRecord, owner_id: uuid.UUID | None, *, by: User) -> FileRecord:
    """Makes this user the file's owner, or nobody, and moves the owner's grant with it.

    `file` is locked by the caller's transaction; it is returned as it is then. Raises ValidationError if there is no
    such user.
    """
    if owner_id is not None and not User.objects.alive().filter(pk=owner_id).exists():
        raise ValidationError({"owner_id": ["There is no such user."]})
    before = {"owner_id": file.owner_id}
    if file.owner_id != owner_id:
        file.owner_id = owner_id
        file.save(update_fields=["owner"])
        grant_to_owners({file.pk: owner_id}, by=by)
        record_change("file.owner_changed", by=by, on=file, before=before, after={"owner_id": owner_id})
    return file
