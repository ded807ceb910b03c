"""Giving a file to its owner."""

from __future__ import annotations

import uuid

from django.db import transaction
from rest_framework.exceptions import ValidationError

from access.audit import record_change
from access.grants import grant_to_owners
from access.models import User
from harvest.models import FileRecord


def set_owner(file: FileRecord, owner_id: uuid.UUID | None, *, by: User) -> FileRecord:
    """Makes this user the file's owner, or nobody, and moves the owner's grant with it, in one transaction.

    Returns the file as it is then. Raises ValidationError if there is no such user.
    """
    if owner_id is not None and not User.objects.alive().filter(pk=owner_id).exists():
        raise ValidationError({"owner_id": ["There is no such user."]})
    with transaction.atomic():
        locked: FileRecord = FileRecord.objects.select_for_update().get(pk=file.pk)
        before = {"owner_id": locked.owner_id}
        if locked.owner_id != owner_id:
            locked.owner_id = owner_id
            locked.save(update_fields=["owner"])
            grant_to_owners({locked.pk: owner_id}, by=by)
            record_change("file.owner_changed", by=by, on=locked, before=before, after={"owner_id": owner_id})
    return locked
