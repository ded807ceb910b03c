"""The hooks that an administrator has set up."""

from __future__ import annotations

from typing import Any, ClassVar, Self
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q

from hooks import addresses, scripts, validation, webhooks
from hooks.builtins import BUILTINS
from hooks.builtins.base import POST_TRANSFER, PRE_TRANSFER
from streamweave.lib.models import SoftDeletedModel, SoftDeletedQuerySet
from streamweave.lib.secrets import EncryptedTextField, SecretError


class Trigger(models.TextChoices):
    PRE_TRANSFER = PRE_TRANSFER, "before the transfer"
    POST_TRANSFER = POST_TRANSFER, "after the transfer"


class Implementation(models.TextChoices):
    BUILTIN = validation.BUILTIN, "builtin"
    PYTHON_SCRIPT = validation.PYTHON_SCRIPT, "Python script"
    HTTP_WEBHOOK = validation.HTTP_WEBHOOK, "HTTP webhook"


TARGET_FIELDS = {
    Implementation.BUILTIN: "builtin_name",
    Implementation.PYTHON_SCRIPT: "script_path",
    Implementation.HTTP_WEBHOOK: "webhook_url",
}
"""Which field says what to call; the two others are null."""


class HookConfigQuerySet(SoftDeletedQuerySet):
    def active_for(self, instrument_id: UUID, trigger: str) -> Self:
        """The enabled hooks that an instrument's files meet, global ones and its own, in the order of asking."""
        mine = Q(instrument=None) | Q(instrument=instrument_id)
        return self.alive().filter(mine, enabled=True, trigger=trigger).order_by("priority", "created_at", "id")


def _exactly_one_target() -> Q:
    one = Q()
    for implementation, field in TARGET_FIELDS.items():
        others = {f"{other}__isnull": True for other in TARGET_FIELDS.values() if other != field}
        one |= Q(implementation=implementation.value, **{f"{field}__isnull": False, f"{field}__gt": ""}, **others)
    return one


class HookConfig(SoftDeletedModel):
    """A rule about files: when it is asked, who answers, and with which config.

    `last_error` is what went wrong the last time it ran, null if nothing did.
    """

    name = models.CharField(max_length=200)
    description = models.TextField(null=True, blank=True)
    trigger = models.CharField(max_length=20, choices=Trigger)
    implementation = models.CharField(max_length=20, choices=Implementation)
    builtin_name = models.CharField(max_length=100, null=True, blank=True, help_text="For a builtin: which one.")
    script_path = models.CharField(
        max_length=500,
        null=True,
        blank=True,
        help_text="For a Python script: its path below the folder of HOOK_SCRIPT_DIR.",
    )
    webhook_url = models.CharField(
        "webhook URL", max_length=2000, null=True, blank=True, help_text="For a webhook: where files are asked about."
    )
    webhook_secret = EncryptedTextField(
        null=True,
        blank=True,
        editable=False,  # forms and serializers take it explicitly, write-only
        help_text="For a webhook: whsec_ and 24 to 64 random bytes in base64, by which the receiver knows us (Standard"
        " Webhooks). Kept encrypted and never shown again. To change it, first give old and new with a space between.",
    )
    config = models.JSONField(
        null=True, blank=True, help_text="What the hook goes by, as JSON. Empty: a builtin does nothing."
    )
    instrument = models.ForeignKey(
        "harvest.Instrument",
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="hooks",
        help_text="Only for this instrument's files; empty for all.",
    )
    priority = models.IntegerField(default=0, help_text="Hooks are asked in this order, the lowest first.")
    enabled = models.BooleanField(default=True)
    last_run_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_failed_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_error = models.TextField(null=True, blank=True, editable=False)

    objects: ClassVar[Any] = HookConfigQuerySet.as_manager()

    class Meta:
        ordering = ("priority", "created_at")
        verbose_name = "hook"
        constraints = [
            models.CheckConstraint(condition=Q(trigger__in=Trigger.values), name="hook_trigger_known"),
            models.CheckConstraint(condition=~Q(name=""), name="hook_named"),
            models.CheckConstraint(
                condition=_exactly_one_target(),
                name="hook_one_target",
                violation_error_message="A builtin has builtin_name, a script script_path, a webhook webhook_url, and"
                " none of the other two.",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def target(self) -> str:
        """What is called: the builtin's name, the script's path or the webhook's URL."""
        return str(getattr(self, TARGET_FIELDS[Implementation(self.implementation)]))

    def clean(self) -> None:
        """Raises ValidationError with a message for each field that is wrong."""
        if self.implementation not in Implementation.values:
            return  # said already, at its own field
        field = TARGET_FIELDS[Implementation(self.implementation)]
        wrong: dict[str, Any] = {
            other: f"Leave it empty: the implementation is {self.implementation}."
            for other in (*TARGET_FIELDS.values(), "webhook_secret")
            if other != field and (field, other) != ("webhook_url", "webhook_secret") and self._has(other)
        }
        if not getattr(self, field):
            wrong[field] = f"Give it: the implementation is {self.implementation}."
        else:
            wrong |= self._wrong_target()
        try:
            validation.validate_config(self.implementation, self.builtin_name, self.config)
        except ValidationError as error:
            wrong = error.message_dict | wrong
        if wrong:
            raise ValidationError(wrong)

    def _has(self, field: str) -> bool:
        return self.__dict__.get(field) is not None  # without opening a secret

    def _wrong_target(self) -> dict[str, str]:
        match self.implementation:
            case Implementation.BUILTIN:
                return self._wrong_builtin()
            case Implementation.PYTHON_SCRIPT:
                try:
                    scripts.find(self.script_path or "")
                except scripts.ScriptPathError as error:
                    return {"script_path": str(error)}
            case Implementation.HTTP_WEBHOOK:
                return self._wrong_webhook()
        return {}

    def _wrong_builtin(self) -> dict[str, str]:
        builtin = BUILTINS.get(self.builtin_name or "")
        if not builtin:
            return {"builtin_name": validation.unknown_builtin(self.builtin_name)}
        if builtin.trigger != self.trigger:
            return {"trigger": f"{self.builtin_name} is for {builtin.trigger} only."}
        return {}

    def _wrong_webhook(self) -> dict[str, str]:
        wrong = {}
        try:
            addresses.parse(self.webhook_url or "")
        except addresses.AddressError as error:
            wrong["webhook_url"] = str(error)
        try:
            webhooks.keys(self.webhook_secret or "")
        except (webhooks.SecretFormatError, SecretError) as error:
            wrong["webhook_secret"] = str(error)
        return wrong
