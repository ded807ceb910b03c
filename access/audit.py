"""Writing the audit log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import models

from access.models import AuditEvent, User


def record(
    action: str,
    *,
    by: User | None,
    on: models.Model | type[models.Model] | None = None,
    detail: Mapping[str, Any] | None = None,
    ip: str | None = None,
) -> AuditEvent:
    """Adds an event to the log, in the caller's transaction.

    `action`: what was done, as noun.participle (`member.added`); `by`: who did it, None for the product itself;
    `on`: the object, or its model if there were several; `detail`: whatever else JSON can hold, secrets masked.
    """
    one = on if isinstance(on, models.Model) else None
    return AuditEvent.objects.create(
        action=action,
        actor=by,
        object_type=on._meta.label_lower if on is not None else None,
        object_id=str(one.pk) if one is not None else None,
        detail=dict(detail or {}),
        ip=ip,
    )
