"""Administrators read the audit log over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from access import sealing
from access.audit import record
from access.models import Group, User

pytestmark = pytest.mark.django_db

KEYS = ["id", "at", "actor_id", "actor_email", "action", "object_type", "object_id", "detail", "ip", "sequence"]


@pytest.fixture
def client(admin: User) -> APIClient:
    client = APIClient()
    client.force_authenticate(User.objects.get(pk=admin.pk))  # with all that a log-in reads
    return client


def test_events_come_newest_first_and_say_everything(client: APIClient, admin: User) -> None:
    group = Group.objects.create(name="Core")
    first = record("group.created", by=admin, on=group, detail={"name": "Core"}, ip="192.0.2.1")
    sealing.seal()
    record("tick", by=None)
    newest, oldest = client.get("/api/audit").json()
    assert list(newest) == list(oldest) == KEYS
    assert (newest["action"], newest["actor_id"], newest["sequence"]) == ("tick", None, None)
    assert oldest == {
        "id": str(first.pk),
        "at": first.at.isoformat().replace("+00:00", "Z"),
        "actor_id": str(admin.pk),
        "actor_email": admin.email,
        "action": "group.created",
        "object_type": "access.group",
        "object_id": str(group.pk),
        "detail": {"name": "Core"},
        "ip": "192.0.2.1",
        "sequence": 1,
    }


def test_an_actor_who_is_gone_has_an_id_and_no_address(client: APIClient, make_user: Callable[..., User]) -> None:
    gone = make_user("gone")
    pk = gone.pk
    record("tick", by=gone)
    gone.delete()
    (event,) = client.get("/api/audit").json()
    assert (event["actor_id"], event["actor_email"]) == (str(pk), None)


def test_events_are_filtered(client: APIClient, admin: User, make_user: Callable[..., User]) -> None:
    ann = make_user("ann")
    group = Group.objects.create(name="Core")
    record("group.created", by=ann, on=group)
    record("group.changed", by=admin, on=group)
    record("login.failed", by=None)

    def found(**query: object) -> list[str]:
        answer = client.get("/api/audit", query)
        assert answer.status_code == 200, answer.content
        return [event["action"] for event in answer.json()]

    assert found(actor_id=ann.pk) == ["group.created"]
    assert found(actor_email="ADMIN@example.org") == ["group.changed"]
    assert found(action="group.") == ["group.changed", "group.created"]
    assert found(action="group.created") == ["group.created"]
    assert found(object_type="access.group", object_id=group.pk, actor_id=admin.pk) == ["group.changed"]
    assert found(until=(timezone.now() - timedelta(hours=1)).isoformat()) == []
    assert found(since="2000-01-01T00:00:00Z", ordering="at") == ["group.created", "group.changed", "login.failed"]


@pytest.mark.parametrize(
    "query",
    [
        "actor_id=nobody",
        "since=yesterday",
        "limit=0",
        "limit=5001",
        "cursor=%00",
        "ordering=detail",
        "action=",
        "colour=red",
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(client: APIClient, query: str) -> None:
    answer = client.get(f"/api/audit?{query}")
    assert answer.status_code == 400
    assert list(answer.json()) == [query.partition("=")[0]]


def test_pages_follow_one_another_and_cost_the_same(
    client: APIClient, admin: User, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(25):
        record("tick", by=admin, detail={"number": number})
    sealing.seal()
    seen, url = [], "/api/audit?limit=10"
    while url:
        with django_assert_max_num_queries(1):
            answer = client.get(url)
        seen += [event["detail"]["number"] for event in answer.json()]
        url = answer.headers.get("Link", "").partition("<")[2].partition(">")[0]
    assert seen == list(reversed(range(25)))


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_nobody_writes_to_it(client: APIClient, method: str) -> None:
    assert getattr(client, method)("/api/audit", {}, format="json").status_code == 405


def test_nobody_else_reads_it(make_user: Callable[..., User]) -> None:
    client = APIClient()
    assert client.get("/api/audit").status_code == 401
    client.force_authenticate(make_user("ann"))
    answer = client.get("/api/audit")
    assert (answer.status_code, answer.json()) == (403, {"detail": "Admin access required"})
