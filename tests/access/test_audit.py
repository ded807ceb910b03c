"""The audit log is added to, and nothing else; it tells what is different, and no secrets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries

from access.audit import Secret, changing, masked, record, record_change, record_changes, snapshot
from access.models import AppendOnlyError, AuditEvent, AuditSeal, Group, User
from harvest.models import ServiceAccount, StorageLocation

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


def test_events_and_seals_are_neither_changed_nor_deleted() -> None:
    event = record("tick", by=None)
    seal = AuditSeal.objects.create(sequence=1, event=event, event_signature=event.signature, previous="")
    for attempt in (
        event.save,
        event.delete,
        AuditEvent.objects.all().delete,
        lambda: AuditEvent.objects.update(action="nothing"),
        lambda: AuditEvent.objects.bulk_update([event], ["action"]),
        seal.save,
        seal.delete,
        AuditSeal.objects.all().delete,
        lambda: AuditSeal.objects.update(previous="nothing"),
    ):
        with pytest.raises(AppendOnlyError), transaction.atomic():
            attempt()
    assert AuditEvent.objects.get().action == "tick"


def test_an_event_outlives_its_actor(admin: User) -> None:
    pk = admin.pk
    record("tick", by=admin)
    admin.delete()
    event = AuditEvent.objects.select_related("actor").get()
    assert (event.actor_id, event.actor_email) == (pk, None)


def test_a_change_tells_what_is_different_and_nothing_else(admin: User) -> None:
    group = Group.objects.create(name="Core", description="before")
    before = snapshot(group)
    group.description = "after"
    group.save()
    event = record_change("group.changed", by=admin, on=group, before=before, after=snapshot(group))
    assert event is not None
    assert event.detail == {"before": {"description": "before"}, "after": {"description": "after"}}


def test_what_changed_nothing_is_no_event(admin: User) -> None:
    group = Group.objects.create(name="Core")
    before = snapshot(group)
    group.save()
    assert record_change("group.changed", by=admin, on=group, before=before, after=snapshot(group)) is None
    assert not AuditEvent.objects.exists()


def test_what_is_new_has_no_before_and_what_is_gone_no_after(admin: User) -> None:
    group = Group.objects.create(name="Core")
    made = record_change("group.created", by=admin, on=group, before=None, after=snapshot(group))
    gone = record_change("group.deleted", by=admin, on=group, before=snapshot(group), after=None)
    assert made is not None
    assert gone is not None
    made.refresh_from_db()
    gone.refresh_from_db()
    assert (made.detail["before"], made.detail["after"]["name"]) == (None, "Core")
    assert (gone.detail["before"]["name"], gone.detail["after"]) == ("Core", None)


def test_a_changed_password_is_told_and_not_shown(admin: User) -> None:
    account = ServiceAccount.objects.create(name="svc", username="svc", password="old-Passw0rd")
    account = ServiceAccount.objects.get()
    before = snapshot(account)
    account.password = "new-Passw0rd"
    account.save()
    event = record_change("serviceaccount.changed", by=admin, on=account, before=before, after=snapshot(account))
    assert event is not None
    assert event.detail == {"before": {"password": "****"}, "after": {"password": "****"}}
    assert "Passw0rd" not in repr(before)


def test_a_password_that_was_only_opened_has_not_changed(admin: User) -> None:
    ServiceAccount.objects.create(name="svc", username="svc", password="old-Passw0rd")
    account = ServiceAccount.objects.get()
    before = snapshot(account)
    assert account.opened_password == "old-Passw0rd"
    account.save()
    assert record_change("x.changed", by=admin, on=account, before=before, after=snapshot(account)) is None


def test_the_secret_in_a_storages_connection_is_told_and_not_shown(admin: User) -> None:
    config = {"bucket": "b", "access_key_id": "id", "secret_access_key": "s3cr3t-one"}
    location = StorageLocation(name="S3", type="s3", base_path="/", connection_config=config)
    before_saving = snapshot(location)
    location.save()
    before = snapshot(location)
    location.connection_config = {**config, "secret_access_key": "s3cr3t-two"}
    location.save()
    made = record_change("storagelocation.created", by=admin, on=location, before=None, after=before_saving)
    changed = record_change("storagelocation.changed", by=admin, on=location, before=before, after=snapshot(location))
    assert made is not None
    assert changed is not None
    assert made.detail["after"]["connection_config"] == {**config, "secret_access_key": "****"}
    assert changed.detail == {"before": {"secrets": "****"}, "after": {"secrets": "****"}}
    assert "s3cr3t" not in str(list(AuditEvent.objects.values()))


def test_a_secret_whose_key_is_lost_can_still_be_compared(settings: Any, admin: User) -> None:
    account = ServiceAccount.objects.create(name="svc", username="svc", password="old-Passw0rd")
    settings.ENCRYPTION_KEYS = ["MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="]
    before = snapshot(ServiceAccount.objects.get())
    account = ServiceAccount.objects.get()
    account.password = "new-Passw0rd"
    event = record_change("x.changed", by=admin, on=account, before=before, after=snapshot(account))
    assert event is not None
    assert event.detail == {"before": {"password": "****"}, "after": {"password": "****"}}


@pytest.mark.parametrize(
    "name", ["password", "new_password", "webhook_secret", "secret_access_key", "token", "access_token", "API_KEY"]
)
def test_secrets_are_masked_at_any_depth(name: str) -> None:
    assert masked({"a": [{name: "hidden"}]}) == {"a": [{name: "****"}]}


@pytest.mark.parametrize("name", ["access_key_id", "token_version", "keyboard", "secretary", "passwordless"])
def test_what_only_looks_like_a_secret_is_not_masked(name: str) -> None:
    assert masked({name: "shown"}) == {name: "shown"}


def test_a_secret_that_is_not_there_is_told_as_such() -> None:
    assert masked({"password": Secret(None), "secret": None}) == {"password": None, "secret": None}


def test_text_that_a_database_cannot_keep_does_not_stop_an_event() -> None:
    event = record("login.failed", by=None, detail={"email": "a\x00b\ud800", "a\x00": 1})
    event.refresh_from_db()
    assert event.detail == {"email": "a\ufffdb?", "a\ufffd": 1}


def test_events_in_bulk_cost_one_insertion(admin: User, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    groups = [Group.objects.create(name=f"Group {number}") for number in range(40)]
    changes = [(group, {"description": None}, {"description": "Seen"}) for group in groups]
    with django_assert_num_queries(1):
        assert record_changes("group.seen", by=admin, of=[*changes, (groups[0], {"a": 1}, {"a": 1})]) == 40
    assert {event.object_id for event in AuditEvent.objects.all()} == {str(group.pk) for group in groups}
    assert all(event.is_as_signed() for event in AuditEvent.objects.all())


def test_a_change_that_fails_is_undone_and_leaves_no_event(admin: User) -> None:
    group = Group.objects.create(name="Core")

    def rename_and_fail() -> None:
        with changing("group.changed", by=admin, on=group):
            group.name = "Other"
            group.save()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        rename_and_fail()
    assert Group.objects.get().name == "Core"
    assert not AuditEvent.objects.exists()


def test_a_change_in_a_block_tells_the_object_s_name_and_what_is_different(admin: User) -> None:
    group = Group.objects.create(name="Core")
    with changing("group.deleted", by=admin, on=group):
        group.soft_delete()
    (event,) = AuditEvent.objects.all()
    assert (event.action, event.object_id, event.detail["name"]) == ("group.deleted", str(group.pk), "Core")
    assert event.detail["before"] == {"deleted_at": None}
    assert set(event.detail["after"]) == {"deleted_at"}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(detail=st.dictionaries(st.text(max_size=5), JSON, max_size=4), ip=st.none() | st.ip_addresses().map(str))
def test_an_event_is_as_signed_after_any_way_through_the_database(detail: dict[str, Any], ip: str | None) -> None:
    event = record("tick", by=None, detail=detail, ip=ip)
    assert AuditEvent.objects.get(pk=event.pk).is_as_signed()


def test_events_are_found_by_what_they_say(admin: User) -> None:
    group = Group.objects.create(name="Core")
    now = timezone.now()
    made = record("group.created", by=admin, on=group)
    record("group.created", by=None, on=Group.objects.create(name="Other"))
    failed = record("login.failed", by=None)
    matching = AuditEvent.objects.matching
    assert set(matching(actor_email=admin.email.upper())) == {made}
    assert set(matching(actor_id=admin.pk)) == {made}
    assert set(matching(action="group.", object_type="access.group", object_id=str(group.pk))) == {made}
    assert set(matching(action="login.failed", since=now)) == {failed}
    assert set(matching(action="group")) == set()
    assert set(matching(until=now - timedelta(minutes=1))) == set()
    assert matching(since=datetime(2000, 1, 1, tzinfo=UTC)).count() == 3
