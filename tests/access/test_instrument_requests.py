"""A user asks for an instrument, an administrator answers once."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from access import instrument_requests
from access.models import AuditEvent, InstrumentRequest, User

pytestmark = pytest.mark.django_db

URL = "/api/instrument-requests"
ASKED = {"name": "Zeiss LSM 980", "location": "Room 12", "justification": "Live cells."}
KEYS = [
    "id", "user_id", "email", "name", "location", "justification", "status", "answer", "answered_by_id", "answered_at",
    "created_at", "updated_at",
]  # fmt: skip


def client_of(user: User | None) -> APIClient:
    client = APIClient()
    client.force_authenticate(user)
    return client


@pytest.fixture
def ann(make_user: Callable[..., User]) -> User:
    return make_user("ann")


@pytest.fixture
def asked(ann: User) -> InstrumentRequest:
    return instrument_requests.ask(user=ann, **ASKED)


def test_a_user_asks_and_sees_his_own(ann: User, make_user: Callable[..., User]) -> None:
    instrument_requests.ask(user=make_user("bob"), **ASKED)
    answer = client_of(ann).post(URL, ASKED, format="json")
    assert answer.status_code == 201
    assert list(answer.json()) == KEYS
    assert {**answer.json(), **ASKED, "status": "pending", "answer": None, "answered_by_id": None} == answer.json()
    assert (answer.json()["email"], answer.json()["user_id"]) == (ann.email, str(ann.pk))
    assert client_of(ann).get(URL).json() == [answer.json()]
    assert client_of(ann).get(f"{URL}/{answer.json()['id']}").json() == answer.json()


def test_the_location_may_be_left_out(ann: User) -> None:
    answer = client_of(ann).post(URL, {"name": "x", "justification": "y"}, format="json")
    assert (answer.status_code, answer.json()["location"]) == (201, None)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "", "justification": "y"}, "name"),
        ({"name": "x" * 201, "justification": "y"}, "name"),
        ({"name": "x"}, "justification"),
        ({"name": "x", "justification": "y" * 5001}, "justification"),
        ({**ASKED, "status": "approved"}, "status"),
        ({**ASKED, "user_id": str(uuid.uuid4())}, "user_id"),
        ({**ASKED, "colour": "red"}, "colour"),
        ({**ASKED, "name": ["x"]}, "name"),
        ({**ASKED, "name": "a\x00b"}, "name"),
    ],
)
def test_a_wrong_field_is_named_and_nothing_is_written(ann: User, body: dict[str, Any], field: str) -> None:
    answer = client_of(ann).post(URL, body, format="json")
    assert answer.status_code == 400
    assert list(answer.json()) == [field]
    assert not InstrumentRequest.objects.exists()


def test_what_another_asked_is_what_does_not_exist(asked: InstrumentRequest, make_user: Callable[..., User]) -> None:
    stranger = client_of(make_user("bob"))
    assert stranger.get(URL).json() == []
    unseen, absent, no_id = (stranger.get(f"{URL}/{pk}") for pk in (asked.pk, uuid.uuid4(), "1"))
    assert (unseen.status_code, unseen.json()) == (404, {"detail": "Instrument request not found"})
    assert unseen.content == absent.content == no_id.content
    assert unseen.headers == absent.headers == no_id.headers


def test_an_administrator_sees_all_and_answers(admin: User, asked: InstrumentRequest, ann: User) -> None:
    client = client_of(admin)
    assert [one["id"] for one in client.get(URL).json()] == [str(asked.pk)]
    answer = client.patch(f"{URL}/{asked.pk}", {"status": "approved", "answer": "Next week."}, format="json")
    assert answer.status_code == 200
    told = answer.json()
    assert (told["status"], told["answer"], told["answered_by_id"]) == ("approved", "Next week.", str(admin.pk))
    assert told["answered_at"].endswith("Z")
    assert client_of(ann).get(URL).json() == [told]


def test_only_an_administrator_answers(asked: InstrumentRequest, ann: User) -> None:
    for pk in (asked.pk, uuid.uuid4()):
        answer = client_of(ann).patch(f"{URL}/{pk}", {"status": "approved"}, format="json")
        assert (answer.status_code, answer.json()) == (403, {"detail": "Admin access required"})
    asked.refresh_from_db()
    assert asked.status == "pending"


def test_a_request_is_answered_once(admin: User, asked: InstrumentRequest) -> None:
    instrument_requests.answer(asked, by=admin, status="rejected")
    answer = client_of(admin).patch(f"{URL}/{asked.pk}", {"status": "approved"}, format="json")
    assert answer.status_code == 409
    asked.refresh_from_db()
    assert asked.status == "rejected"


@pytest.mark.parametrize("body", [{}, {"status": "pending"}, {"status": 1}, {"status": "approved", "answered_by": 1}])
def test_a_wrong_answer_is_refused(admin: User, asked: InstrumentRequest, body: dict[str, Any]) -> None:
    assert client_of(admin).patch(f"{URL}/{asked.pk}", body, format="json").status_code == 400


def test_asking_and_answering_are_events(admin: User, asked: InstrumentRequest, ann: User) -> None:
    instrument_requests.answer(asked, by=admin, status="approved", answer="Yes.")
    answered, created = AuditEvent.objects.all()
    assert (created.action, created.actor, created.object_id) == ("instrumentrequest.created", ann, str(asked.pk))
    assert (answered.action, answered.actor) == ("instrumentrequest.answered", admin)
    assert answered.detail["before"]["status"] == "pending"
    assert answered.detail["after"]["status"] == "approved"


def test_the_list_costs_one_query(
    asked: InstrumentRequest, admin: User, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for _ in range(20):
        instrument_requests.ask(user=admin, **ASKED)
    client = client_of(User.objects.get(pk=admin.pk))
    with django_assert_num_queries(1):
        assert len(client.get(URL).json()) == 21


def test_the_database_keeps_status_and_time_of_the_answer_together(ann: User) -> None:
    for wrong in ({"status": "approved"}, {"answered_at": timezone.now()}, {"status": "lost"}):
        with pytest.raises(IntegrityError), transaction.atomic():
            InstrumentRequest.objects.create(user=ann, name="x", justification="y", **wrong)


def test_a_request_that_has_changed_since_it_was_read_is_not_answered(admin: User, asked: InstrumentRequest) -> None:
    url = f"{URL}/{asked.pk}"
    etag = client_of(admin).get(url)["ETag"]
    asked.justification = "Dead cells."
    asked.save()
    body = {"status": "approved"}
    stale = client_of(admin).patch(url, body, format="json", headers={"If-Match": etag})
    assert stale.status_code == 412
    asked.refresh_from_db()
    assert asked.status == "pending"
    etag = client_of(admin).get(url)["ETag"]
    assert client_of(admin).patch(url, body, format="json", headers={"If-Match": etag}).status_code == 200
