"""Asking for an instrument, and answering."""

from __future__ import annotations

from django.db import models, transaction
from django.utils import timezone

from access import policy
from access.audit import record, record_change, snapshot
from access.models import InstrumentRequest, User


class AnsweredAlreadyError(ValueError):
    """A request is answered once."""

    def __init__(self) -> None:
        super().__init__("This request has been answered already.")


def visible_requests(user: User) -> models.QuerySet[InstrumentRequest]:
    """A user's own requests; all of them for an administrator."""
    requests = InstrumentRequest.objects.select_related("user")
    return requests if policy.is_admin(user) else requests.filter(user=user)


def ask(*, user: User, name: str, location: str | None = None, justification: str) -> InstrumentRequest:
    """Writes down that `user` asks for an instrument."""
    with transaction.atomic():
        request = InstrumentRequest.objects.create(user=user, name=name, location=location, justification=justification)
        record("instrumentrequest.created", by=user, on=request, detail={"name": name, "location": location})
    return request


def answer(request: InstrumentRequest, *, by: User, status: str, answer: str | None = None) -> InstrumentRequest:
    """Approves or rejects it. Of two administrators who answer at once one does: raises AnsweredAlreadyError."""
    before = snapshot(request)
    with transaction.atomic():
        pending = InstrumentRequest.objects.filter(pk=request.pk, status=InstrumentRequest.Status.PENDING)
        if not pending.update(status=status, answer=answer, answered_by=by, answered_at=timezone.now()):
            raise AnsweredAlreadyError
        request.refresh_from_db()
        record_change("instrumentrequest.answered", by=by, on=request, before=before, after=snapshot(request))
    return request
