"""What was done, by whom, to what: a table to which rows are only ever added, and the seals that show it.

Every event is signed with a key that is not in the database, as it is written and without waiting for any other. A
sealer (`access.sealing`) then numbers the events and chains them, in a table of its own. So an event that was changed
or put in by another hand does not match its signature, and one that was taken out leaves its seal behind, or a gap in
the numbers.
"""

from __future__ import annotations

import ipaddress
import json
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar, NoReturn, Self

from django.conf import settings
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.utils import timezone

from streamweave.lib import macs

SIGNATURE_CHARACTERS = 100


class AppendOnlyError(TypeError):
    """The audit log can be added to, and neither changed nor shortened."""

    def __init__(self) -> None:
        super().__init__("The audit log is append-only: its events are neither changed nor deleted.")


class AppendOnlyQuerySet(models.QuerySet[Any]):
    def update(self, **values: Any) -> NoReturn:
        raise AppendOnlyError

    def delete(self) -> NoReturn:
        raise AppendOnlyError


class AppendOnlyModel(models.Model):
    objects: ClassVar[Any] = AppendOnlyQuerySet.as_manager()

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise AppendOnlyError
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise AppendOnlyError


class AuditEventQuerySet(AppendOnlyQuerySet):
    def matching(
        self,
        *,
        actor_id: uuid.UUID | None = None,
        actor_email: str | None = None,
        action: str | None = None,
        object_type: str | None = None,
        object_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Self:
        """Those that meet every condition given. An `action` that ends in a dot stands for all that begin so."""
        asked: dict[str, Any] = {
            "actor": actor_id,
            "actor__email__iexact": actor_email,
            "action__startswith" if action and action.endswith(".") else "action": action,
            "object_type": object_type,
            "object_id": object_id,
            "at__gte": since,
            "at__lt": until,
        }
        return self.filter(**{name: value for name, value in asked.items() if value is not None})


class SignatureField(models.CharField):  # type: ignore[type-arg]  # they are there in the stubs only
    """The signature of the row it is in, made when the row is inserted, alone or in bulk."""

    def deconstruct(self) -> Any:
        """To migrations it is a text like others."""
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.CharField", args, kwargs

    def pre_save(self, model_instance: Any, add: bool) -> Any:
        if add:
            model_instance.sign()
        return super().pre_save(model_instance, add)


class AuditEvent(AppendOnlyModel):
    """One thing that was done. `access.audit` writes it, in the transaction of the thing itself."""

    SIGNED_FOR = "audit event"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    at = models.DateTimeField(default=timezone.now, editable=False)
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.DO_NOTHING,  # an event outlives everything it tells of, its actor too
        db_constraint=False,
        db_index=False,
        related_name="+",
        help_text="Null: the product itself, or somebody who has not logged in.",
    )
    action = models.CharField(max_length=100, help_text="What was done, such as grant.added.")
    object_type = models.CharField(max_length=100, null=True, help_text="Model, such as access.group.")
    object_id = models.CharField(max_length=64, null=True, help_text="Null: several, which `detail` names.")
    detail = models.JSONField(default=dict, encoder=DjangoJSONEncoder)
    ip = models.GenericIPAddressField(null=True)
    signature = SignatureField(max_length=SIGNATURE_CHARACTERS, default="", editable=False)

    objects: ClassVar[Any] = AuditEventQuerySet.as_manager()

    class Meta:
        ordering = ("-at", "-id")
        indexes = [
            models.Index(fields=["-at", "-id"], name="audit_newest"),
            models.Index(fields=["object_type", "object_id", "-at"], name="audit_of_object"),
            models.Index(fields=["actor", "-at"], name="audit_by_actor"),
            models.Index(fields=["action", "-at"], name="audit_of_action"),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.object_type or ''} {self.object_id or ''}".strip()

    @property
    def actor_email(self) -> str | None:
        """None for the product itself, and for an actor who was removed from the database."""
        actor = self._state.fields_cache.get("actor")
        return actor.email if actor else None

    @property
    def sequence(self) -> int | None:
        """Its number in the chain; None as long as it is not sealed."""
        seal = self._state.fields_cache.get("seal")
        return seal.sequence if seal else None

    def sign(self) -> None:
        self.signature = macs.sign(self.SIGNED_FOR, self._content())

    def is_as_signed(self) -> bool:
        """Whether the row is as it was written. Raises macs.UnknownKeyError if the key is missing."""
        return macs.is_signed(self.SIGNED_FOR, self._content(), self.signature)

    def _content(self) -> bytes:
        """All that the event says, in one form whichever database it has been through."""
        said = [
            str(self.pk),
            self.at.astimezone(UTC).isoformat(),
            str(self.actor_id) if self.actor_id else None,
            self.action,
            self.object_type,
            self.object_id,
            _whole(json.loads(json.dumps(self.detail, cls=DjangoJSONEncoder))),
            ipaddress.ip_address(self.ip).packed.hex() if self.ip else None,
        ]
        return json.dumps(said, sort_keys=True, separators=(",", ":")).encode()


class AuditSeal(AppendOnlyModel):
    """The place of one event in the chain: number `sequence`, after the seal whose signature is `previous`."""

    SIGNED_FOR = "audit seal"

    sequence = models.BigIntegerField(primary_key=True)
    # without a constraint in the database, so that a removed event leaves its seal behind
    event = models.OneToOneField(AuditEvent, on_delete=models.DO_NOTHING, db_constraint=False, related_name="seal")
    event_signature = models.CharField(max_length=SIGNATURE_CHARACTERS)
    previous = models.CharField(max_length=SIGNATURE_CHARACTERS, help_text="Empty for the first one.")
    signature = SignatureField(max_length=SIGNATURE_CHARACTERS, default="", editable=False)
    sealed_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("sequence",)
        constraints = [models.CheckConstraint(condition=models.Q(sequence__gte=1), name="audit_seal_from_one")]

    def __str__(self) -> str:
        return f"{self.sequence}:{self.signature}"

    def sign(self) -> None:
        self.signature = macs.sign(self.SIGNED_FOR, self._content())

    def is_as_signed(self) -> bool:
        """Whether the row is as it was written. Raises macs.UnknownKeyError if the key is missing."""
        return macs.is_signed(self.SIGNED_FOR, self._content(), self.signature)

    def _content(self) -> bytes:
        said = [self.sequence, str(self.event_id), self.event_signature, self.previous]
        said.append(self.sealed_at.astimezone(UTC).isoformat())
        return json.dumps(said).encode()


def _whole(value: Any) -> Any:
    """Floats without a fraction as whole numbers: PostgreSQL gives 1e16 back as 10000000000000000."""
    match value:
        case dict():
            return {key: _whole(one) for key, one in value.items()}
        case list():
            return [_whole(one) for one in value]
        case float() if value.is_integer():
            return int(Decimal(repr(value)))
    return value
