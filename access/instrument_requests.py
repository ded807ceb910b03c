"""Asking for an instrument, and answering."""

from __future__ import annotations

from django.db import models, transaction
from django.utils import timezone

from access import policy
from access.audit import changing, record
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
    """Approves or rejects it; returns it as it is then, to be read by who has asked.

    Of two administrators who answer at once one does: raises AnsweredAlreadyError.
    """
    with transaction.atomic():
        held = InstrumentRequest.objects.select_related("user").select_for_update(of=("self",)).get(pk=request.pk)
        if held.status != InstrumentRequest.Status.PENDING:
            raise AnsweredAlreadyError
        with changing("instrumentrequest.answered", by=by, on=held):
            held.status, held.answer = status, answer or None
            held.answered_by, held.answered_at = by, timezone.now()
            held.save()
    return held
