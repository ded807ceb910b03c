"""Writing the audit log.

with transaction.atomic():
    before = snapshot(instrument)
    …
    record_change("instrument.changed", by=user, on=instrument, before=before, after=snapshot(instrument))
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models

from access.models import AuditEvent, User
from streamweave.lib.secrets import MASK, EncryptedTextField, SecretError

SECRET_NAMES = frozenset(
    {"access_token", "api_key", "authorization", "credentials", "passphrase", "private_key", "refresh_token", "secrets"}
)
SECRET_ENDINGS = ("password", "secret", "secret_access_key", "token", "token_hash", "key_hash")
"""A field whose name is, or ends in, one of these is recorded as `****`, wherever it stands."""

NOISE = frozenset({"created_at", "updated_at", "last_login", "token_version"})
"""Fields that change by themselves along with others."""


@dataclass(frozen=True, repr=False)
class Secret:
    """A secret in a snapshot: it can be told from another one, and shows only its mask."""

    value: Any = field(repr=False)

    def __repr__(self) -> str:
        return MASK


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
    `on`: the object, or its model if there were several; `detail`: whatever else JSON can hold; `ip`: where from.
    """
    event = _event(action, by=by, on=on, detail=detail, ip=ip)
    event.save(force_insert=True)
    return event


def record_each(
    action: str,
    *,
    by: User | None,
    on: Iterable[models.Model],
    detail: Mapping[str, Any] | None = None,
    ip: str | None = None,
) -> int:
    """An event for each of the objects, written together; returns how many."""
    events = [_event(action, by=by, on=one, detail=detail, ip=ip) for one in on]
    AuditEvent.objects.bulk_create(events, batch_size=500)
    return len(events)


def record_change(
    action: str,
    *,
    by: User | None,
    on: models.Model,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    ip: str | None = None,
) -> AuditEvent | None:
    """Adds an event that tells what is different `after` from `before`, both as `snapshot` gives them.

    `before` is None for what was created, `after` for what is gone. The event's detail is `{"before": …, "after": …}`
    with the fields that differ. Returns None, and writes nothing, if both are given and none does.
    """
    detail: dict[str, Any] = {"before": before and dict(before), "after": after and dict(after)}
    if before is not None and after is not None:
        names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        if not names:
            return None
        detail = {
            "before": {name: before[name] for name in names if name in before},
            "after": {name: after[name] for name in names if name in after},
        }
    return record(action, by=by, on=on, detail=detail, ip=ip)


def snapshot(obj: models.Model, *, exclude: Collection[str] = ()) -> dict[str, Any]:
    """What the columns of `obj` hold, by name, but those of `exclude`, of NOISE, and what the database works out.

    Secrets are there to be compared: printed or recorded, they are `****`.
    """
    taken = {}
    for column in obj._meta.concrete_fields:
        if column.generated or column.name in exclude or column.attname in NOISE or column.name in NOISE:
            continue
        if isinstance(column, EncryptedTextField):
            taken[column.attname] = _opened(obj, column)
        elif _is_secret(column.attname):
            taken[column.attname] = Secret(getattr(obj, column.attname))
        else:
            taken[column.attname] = _copied(getattr(obj, column.attname))
    return taken


def masked(value: Any) -> Any:
    """`value` as JSON can hold it and every database can keep it, with `****` in place of what is secret in it."""
    match value:
        case Secret():
            return None if value.value in (None, "") else MASK
        case Mapping():
            return {
                _clean(str(name)): MASK if _is_secret(str(name)) and isinstance(one, str) and one else masked(one)
                for name, one in value.items()
            }
        case str():
            return _clean(value)
        case list() | tuple() | set() | frozenset():
            return [masked(one) for one in value]
    return value


def _event(
    action: str,
    *,
    by: User | None,
    on: models.Model | type[models.Model] | None,
    detail: Mapping[str, Any] | None,
    ip: str | None,
) -> AuditEvent:
    one = on if isinstance(on, models.Model) else None
    return AuditEvent(
        action=action,
        actor=by,
        object_type=on._meta.label_lower if on is not None else None,
        object_id=str(one.pk) if one is not None else None,
        detail=masked(detail or {}),
        ip=ip or None,
    )


def _is_secret(name: str) -> bool:
    name = name.lower()
    return name in SECRET_NAMES or name.endswith(SECRET_ENDINGS)


def _opened(obj: models.Model, column: EncryptedTextField) -> Secret:
    try:
        return Secret(getattr(obj, column.attname))
    except SecretError:
        return Secret(obj.__dict__[column.attname].token)  # its key is lost; as it lies there it can be compared too


def _copied(value: Any) -> Any:
    """JSON values are copied, since the object may be changed in place afterwards."""
    return json.loads(json.dumps(value, cls=DjangoJSONEncoder)) if isinstance(value, (dict, list)) else value


def _clean(text: str) -> str:
    """Without what PostgreSQL cannot keep: NUL characters and halves of surrogate pairs."""
    return text.replace("\x00", "\ufffd").encode(errors="replace").decode()
