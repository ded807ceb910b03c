"""What facility staff set up: service accounts, instruments, storage locations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any
from zoneinfo import available_timezones

import jsonschema
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models.functions import Lower

from harvest.storage import KINDS, open_storage, storage_class
from harvest.storage.base import RESERVED, Fault, Storage, StorageError
from harvest.storage.names import INSTRUMENT_FOLDER, encode_name
from streamweave.lib.hosts import why_no_host
from streamweave.lib.models import SoftDeletedModel
from streamweave.lib.secrets import EncryptedTextField, SecretError

STORAGE_REQUESTS_IN_FLIGHT = 32
"""How many requests a storage may have under way: it is there for us, unlike an instrument's computer."""
MASK = "****"
"""What is shown in place of a secret; sent back, it keeps the secret as it is."""


def storage_kinds() -> Mapping[str, str]:
    """The kinds of storage, with those that the settings add."""
    return {**KINDS, **settings.STORAGE_KINDS}


class ServiceAccount(SoftDeletedModel):
    """The account with which we log in to an instrument's share."""

    name = models.CharField(max_length=200)
    domain = models.CharField(
        max_length=200, null=True, blank=True, help_text="Windows domain; leave empty for a local account."
    )
    username = models.CharField(max_length=200)
    password = EncryptedTextField(help_text="Kept encrypted and never shown again.")

    class Meta:
        ordering = ("created_at",)
        constraints = [
            models.UniqueConstraint(
                fields=["name"], condition=models.Q(deleted_at=None), name="service_account_name_unique"
            )
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def opened_password(self) -> str:
        """The password in clear. Raises StorageError(configuration) where it cannot be decrypted."""
        try:
            return self.password
        except SecretError as error:
            raise StorageError(Fault.CONFIGURATION, f"The service account “{self}”: {error}") from error

    def save(self, *args: Any, **kwargs: Any) -> None:
        """With new credentials, instruments that were set aside because the old ones failed may be tried again."""
        old = ServiceAccount.objects.filter(pk=self.pk).first()
        super().save(*args, **kwargs)
        if old is None or old._credentials() != self._credentials():
            self.instruments.filter(paused_at__isnull=False).update(paused_at=None, paused_reason=None)

    def _credentials(self) -> tuple[str | None, str, str | None]:
        try:
            return self.domain, self.username, self.password
        except SecretError:
            return self.domain, self.username, None


class ReplacedFile(models.TextChoices):
    NEW_RECORD = "new_record", "a new record with its own ARK and no inherited grants"
    NEW_VERSION = "new_version", "a new version of the same record"


class Instrument(SoftDeletedModel):
    """A scientific instrument that writes its files to an SMB share."""

    name = models.CharField(max_length=200)
    description = models.TextField(null=True, blank=True)
    location = models.CharField(max_length=200, null=True, blank=True)
    pid = models.CharField(
        "persistent identifier",
        max_length=200,
        null=True,
        blank=True,
        help_text="Of the instrument itself, e.g. a DOI.",
    )
    cifs_host = models.CharField("SMB host", max_length=255, help_text="Name or address, with :port if it is not 445.")
    cifs_share = models.CharField("SMB share", max_length=255)
    cifs_base_path = models.CharField(
        "folder on the share", max_length=1000, default="/", help_text="Only what is below it is harvested."
    )
    service_account = models.ForeignKey(
        ServiceAccount, null=True, blank=True, on_delete=models.PROTECT, related_name="instruments"
    )
    transfer_adapter = models.CharField(
        max_length=50, default="streamweave", help_text="Kept for clients of the original; it changes nothing."
    )
    transfer_config = models.JSONField(null=True, blank=True)
    enabled = models.BooleanField(default=True)
    storage_folder = models.CharField(
        max_length=255, editable=False, help_text="The folder of its files on every storage, fixed at creation."
    )
    last_harvested_at = models.DateTimeField(null=True, blank=True, editable=False)
    paused_at = models.DateTimeField(null=True, blank=True, editable=False)
    paused_reason = models.TextField(null=True, blank=True, editable=False)

    # When is a file complete?
    min_age_seconds = models.PositiveIntegerField(
        default=60, help_text="A file is taken when it has not changed for this long."
    )
    unchanged_looks = models.PositiveSmallIntegerField(
        default=0, help_text="How many further looks must find size and time unchanged; 0 for none."
    )
    look_interval_seconds = models.PositiveIntegerField(
        default=30, validators=[MinValueValidator(1)], help_text="The time between two looks."
    )
    marker_name = models.CharField(
        max_length=255,
        null=True,
        blank=True,
        help_text="A file that must lie in the same folder before a file is taken, e.g. done.txt or {name}.done.",
    )
    lock_pattern = models.CharField(
        max_length=255,
        null=True,
        blank=True,
        help_text="No file is taken while one that matches lies in its folder, e.g. *.lock.",
    )
    quiet_folder_seconds = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="A file is taken when nothing in its acquisition folder has changed for this long.",
    )
    acquisition_depth = models.PositiveSmallIntegerField(
        default=1, validators=[MinValueValidator(1)], help_text="The acquisition folder is this deep in the path."
    )
    replaced_file = models.CharField(max_length=20, choices=ReplacedFile, default=ReplacedFile.NEW_RECORD)

    # How gently do we treat it?
    max_connections = models.PositiveSmallIntegerField(
        default=2, validators=[MinValueValidator(1)], help_text="The greatest number of connections at the same time."
    )
    max_requests_in_flight = models.PositiveSmallIntegerField(
        default=8,
        validators=[MinValueValidator(1)],
        help_text="The greatest number of unanswered requests a connection.",
    )
    max_bytes_per_second = models.PositiveBigIntegerField(
        null=True,
        blank=True,
        default=50 * 1024 * 1024,
        validators=[MinValueValidator(1024)],
        help_text="Over all connections; empty for no limit.",
    )
    quiet_from = models.TimeField(null=True, blank=True, help_text="Nothing is read from this time of day on …")
    quiet_until = models.TimeField(null=True, blank=True, help_text="… until this one.")
    quiet_timezone = models.CharField(max_length=64, default="UTC")

    class Meta:
        ordering = ("created_at",)
        constraints = [
            models.UniqueConstraint(
                fields=["name"], condition=models.Q(deleted_at=None), name="instrument_name_unique"
            ),
            models.UniqueConstraint(Lower("storage_folder"), name="instrument_storage_folder_unique"),
            models.CheckConstraint(condition=~models.Q(storage_folder=""), name="instrument_storage_folder_given"),
            models.CheckConstraint(condition=models.Q(max_connections__gte=1), name="instrument_max_connections"),
            models.CheckConstraint(
                condition=models.Q(max_requests_in_flight__gte=1), name="instrument_max_requests_in_flight"
            ),
            models.CheckConstraint(condition=models.Q(acquisition_depth__gte=1), name="instrument_acquisition_depth"),
            models.CheckConstraint(
                condition=models.Q(quiet_from=None, quiet_until=None)
                | models.Q(quiet_from__isnull=False, quiet_until__isnull=False),
                name="instrument_quiet_hours_whole",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @classmethod
    def from_db(cls, *args: Any, **kwargs: Any) -> Instrument:
        instrument = super().from_db(*args, **kwargs)
        instrument._logged_in_with = instrument._log_in()
        return instrument

    _logged_in_with: tuple[Any, ...] | None = None

    def _log_in(self) -> tuple[Any, ...] | None:
        fields = ("cifs_host", "cifs_share", "service_account_id")
        return None if self.get_deferred_fields() & set(fields) else tuple(getattr(self, field) for field in fields)

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self.storage_folder:
            self.storage_folder = self._free_storage_folder()
        if self.paused_at and self._logged_in_with != self._log_in():
            self.paused_at = self.paused_reason = None
        super().save(*args, **kwargs)
        self._logged_in_with = self._log_in()

    def _free_storage_folder(self) -> str:
        """The name unchanged wherever it is a legal path component; encoded, and numbered if taken, elsewhere."""
        folder = encode_name(self.name, INSTRUMENT_FOLDER)
        if folder.casefold() == RESERVED:
            folder = f"_{folder}"
        taken = set(
            Instrument.objects.filter(storage_folder__istartswith=folder).values_list(
                Lower("storage_folder"), flat=True
            )
        )
        number, free = 1, folder
        while free.lower() in taken:
            number += 1
            free = f"{folder} ({number})"
        return free

    def clean(self) -> None:
        if (self.quiet_from is None) != (self.quiet_until is None):
            raise ValidationError({"quiet_until": "Give both ends of the quiet hours, or neither."})
        if self.quiet_timezone not in available_timezones():
            message = f"“{self.quiet_timezone}” is no time zone; use a name such as Europe/Zurich or UTC."
            raise ValidationError({"quiet_timezone": message})
        self._clean_address()

    def _clean_address(self) -> None:
        """Open the share without touching it, with a stand-in for the log-in: does the address make sense?"""
        if why := why_no_host(self.cifs_host):
            raise ValidationError({"cifs_host": why})
        stand_in = {"username": "x", "password": "x"}
        for field, base_path in (("cifs_host", ""), ("cifs_base_path", self.cifs_base_path)):
            config = {"host": self.cifs_host, "share": self.cifs_share, **stand_in}
            try:
                open_storage("cifs", base_path, config, kinds=storage_kinds())
            except StorageError as error:
                raise ValidationError({field: str(error)}) from None

    def resume(self) -> None:
        """Harvest it again after a refused log-in had paused it."""
        self.paused_at = self.paused_reason = None
        self.save(update_fields=["paused_at", "paused_reason"])

    def open_source(self) -> Storage:
        """The instrument's share, to read from; not connected yet.

        Raises StorageError(configuration) where the service account is missing.
        """
        account = self.service_account
        if account is None:
            raise StorageError(
                Fault.CONFIGURATION,
                f"The instrument “{self}” has no service account; give it one, so that we can log in.",
            )
        config = {
            "host": self.cifs_host,
            "share": self.cifs_share,
            "domain": account.domain,
            "username": account.username,
            "password": account.opened_password,
        }
        source = open_storage("cifs", self.cifs_base_path, config, kinds=storage_kinds())
        source.tune(requests_in_flight=self.max_requests_in_flight, pipelined=settings.SMB_PIPELINED)
        return source


class StorageLocation(SoftDeletedModel):
    """A place where copies are kept."""

    name = models.CharField(max_length=200)
    type = models.CharField(max_length=20, help_text="posix, s3 or cifs (an SMB share).")
    connection_config = models.JSONField(
        null=True, blank=True, help_text=f"What the type needs to connect. Secrets are shown as {MASK}."
    )
    secrets = EncryptedTextField(null=True, blank=True, editable=False)
    base_path = models.CharField(max_length=1000, help_text="Everything is kept below it.")
    enabled = models.BooleanField(default=True)

    class Meta:
        ordering = ("created_at",)
        constraints = [
            models.UniqueConstraint(
                fields=["name"], condition=models.Q(deleted_at=None), name="storage_location_name_unique"
            )
        ]

    def __str__(self) -> str:
        return self.name

    def save(self, *args: Any, **kwargs: Any) -> None:
        self._put_secrets_away()
        super().save(*args, **kwargs)

    def _put_secrets_away(self) -> None:
        """Move secrets from connection_config, where only the mask stays, to the encrypted column."""
        config = dict(self.connection_config or {})
        secret = storage_class(self.type, kinds=storage_kinds()).secret_fields & config.keys()
        new = {key: config[key] for key in secret if config[key] not in (MASK, None)}
        if not new:
            return
        # Old secrets are opened only if one of them is kept, so that all can be entered anew after a key was lost.
        old = self._opened_secrets() if any(config[key] == MASK for key in secret) else {}
        self.connection_config = {**config, **dict.fromkeys(new, MASK)}
        self.secrets = json.dumps({**old, **new})

    def _opened_secrets(self) -> dict[str, Any]:
        """Raises StorageError(configuration) where they cannot be decrypted."""
        try:
            return json.loads(self.secrets) if self.secrets else {}
        except SecretError as error:
            raise StorageError(Fault.CONFIGURATION, f"The storage location “{self}”: {error}") from error

    @property
    def config_in_clear(self) -> dict[str, Any]:
        """The connection_config with its secrets; for opening the storage only. Raises StorageError(configuration)."""
        config = dict(self.connection_config or {})
        kept = self._opened_secrets()
        return {key: kept.get(key, value) if value == MASK else value for key, value in config.items()}

    @property
    def folds_case(self) -> bool:
        return storage_class(self.type, kinds=storage_kinds()).folds_case

    def open(self) -> Storage:
        """The storage, not connected yet. Raises StorageError(configuration)."""
        storage = open_storage(self.type, self.base_path, self.config_in_clear, kinds=storage_kinds())
        storage.tune(requests_in_flight=STORAGE_REQUESTS_IN_FLIGHT, pipelined=settings.SMB_PIPELINED)
        return storage

    def clean(self) -> None:
        try:
            kind = storage_class(self.type, kinds=storage_kinds())
        except StorageError as error:
            raise ValidationError({"type": str(error)}) from None
        config = self.connection_config or {}
        problems = []
        for problem in jsonschema.Draft202012Validator(kind.config_schema).iter_errors(config):
            where = ".".join(str(part) for part in problem.absolute_path)
            # A secret is not repeated in the message that refuses it.
            message = "This cannot be a secret." if where in kind.secret_fields else problem.message
            problems.append(f"{where}: {message}" if where else message)
        if problems:
            raise ValidationError({"connection_config": problems})
        self._clean_meaning(kind.secret_fields & config.keys())
        self._refuse_to_move()

    def _clean_meaning(self, secret_keys: AbstractSet[str]) -> None:
        """Open the storage without touching it: does the config make sense beyond its schema?"""
        config = self.connection_config or {}
        try:
            kept = self._opened_secrets() if MASK in config.values() else {}
        except StorageError as error:
            raise ValidationError({"connection_config": str(error)}) from None
        for key in sorted(secret_keys):
            if config[key] == MASK and key not in kept:
                raise ValidationError({"connection_config": f"{key}: {MASK} keeps a secret, but there is none yet."})
        for field, base_path in (("connection_config", "/"), ("base_path", self.base_path)):
            try:
                open_storage(self.type, base_path, config, kinds=storage_kinds())
            except StorageError as refusal:
                raise ValidationError({field: str(refusal)}) from None

    def _refuse_to_move(self) -> None:
        """What is stored is found by its path below base_path: neither type nor base_path may change under it."""
        old = StorageLocation.objects.filter(pk=self.pk).values("type", "base_path").first()
        if not old or (old["type"], old["base_path"]) == (self.type, self.base_path):
            return
        if self.transfers.filter(stored_path__isnull=False).exists():
            field = "type" if old["type"] != self.type else "base_path"
            raise ValidationError({field: "Files are stored here already; make a new storage location instead."})
