"""The audit log is added to, and nothing else."""

from __future__ import annotations

import pytest
from django.db import transaction

from access.audit import record
from access.models import AppendOnlyError, AuditEvent, Group, User

pytestmark = pytest.mark.django_db


def test_an_event_says_who_did_what_to_what(admin: User) -> None:
    group = Group.objects.create(name="Core")
    event = record("group.created", by=admin, on=group, detail={"name": "Core"}, ip="192.0.2.1")
    event.refresh_from_db()
    assert (event.actor, event.action, event.object_type, event.object_id) == (
        admin,
        "group.created",
        "access.group",
        str(group.pk),
    )
    assert (event.detail, event.ip) == ({"name": "Core"}, "192.0.2.1")


def test_the_product_itself_acts_without_an_actor() -> None:
    event = record("tick", by=None)
    assert (event.actor, event.object_type, event.object_id, event.detail) == (None, None, None, {})


def test_events_are_neither_changed_nor_deleted() -> None:
    event = record("tick", by=None)
    for attempt in (
        event.save,
        event.delete,
        AuditEvent.objects.all().delete,
        lambda: AuditEvent.objects.update(action="nothing"),
        lambda: AuditEvent.objects.bulk_update([event], ["action"]),
    ):
        with pytest.raises(AppendOnlyError), transaction.atomic():
            attempt()
    assert AuditEvent.objects.get().action == "tick"


def test_an_event_outlives_its_actor(admin: User) -> None:
    pk = admin.pk
    record("tick", by=admin)
    admin.delete()
    assert AuditEvent.objects.get().actor_id == pk
