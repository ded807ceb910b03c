"""What users ask of the administrators."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from streamweave.lib.models import TimestampedModel


class InstrumentRequest(TimestampedModel):
    """A user asks for an instrument to be harvested; an administrator answers once."""

    class Status(models.TextChoices):
        PENDING = "pending", "not answered yet"
        APPROVED = "approved", "approved"
        REJECTED = "rejected", "rejected"

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="instrument_requests")
    name = models.CharField(max_length=200, help_text="What the instrument is called.")
    location = models.CharField(max_length=200, null=True, blank=True, help_text="Where it stands.")
    justification = models.TextField(max_length=5000, help_text="What its files are needed for.")
    status = models.CharField(max_length=20, choices=Status, default=Status.PENDING)
    answer = models.TextField(max_length=5000, null=True, blank=True, help_text="What the administrator says to it.")
    answered_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, db_index=False, related_name="+"
    )
    answered_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-created_at", "-id")
        indexes = [models.Index(fields=["-created_at", "-id"], name="instrument_request_newest")]
        constraints = [
            models.CheckConstraint(
                condition=Q(status="pending", answered_at=None)
                | Q(status__in=("approved", "rejected"), answered_at__isnull=False),
                name="instrument_request_answered",
            ),
        ]

    def __str__(self) -> str:
        return self.name
