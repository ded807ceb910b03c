"""Writing the audit log.

with changing("instrument.resumed", by=user, on=instrument):
    instrument.resume()
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models, transaction

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
    detail = _difference(before, after)
    return None if detail is None else record(action, by=by, on=on, detail=detail, ip=ip)


def record_changes(
    action: str,
    *,
    by: User | None,
    of: Iterable[tuple[models.Model, Mapping[str, Any], Mapping[str, Any]]],
    ip: str | None = None,
) -> int:
    """The same for many objects, as (object, before, after), whose events are written together; returns how many.

    Beside what is different each event tells the object's name.
    """
    events = []
    for one, before, after in of:
        detail = _difference(before, after)
        if detail is not None:
            events.append(_event(action, by=by, on=one, detail={"name": str(one), **detail}, ip=ip))
    AuditEvent.objects.bulk_create(events, batch_size=500)
    return len(events)


@contextmanager
def changing(action: str, *, by: User | None, on: models.Model, ip: str | None = None) -> Iterator[None]:
    """One transaction, at whose end an event tells what it has changed in `on`, and the object's name.

    `on` must be as the database has it when it begins.
    """
    with transaction.atomic():
        before = snapshot(on)
        yield
        record_changes(action, by=by, of=[(on, before, snapshot(on))], ip=ip)


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


def _difference(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The detail of a change; None if there is none."""
    if before is None or after is None:
        return {"before": before and dict(before), "after": after and dict(after)}
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    told = {
        "before": {name: before[name] for name in names if name in before},
        "after": {name: after[name] for name in names if name in after},
    }
    return told if names else None


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
