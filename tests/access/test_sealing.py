"""Whatever is done to the audit log behind our back is found and named."""

from __future__ import annotations

import json
import re
import threading
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from access import sealing
from access.audit import record
from access.models import AuditEvent, AuditSeal, User
from access.sealing import Verification, Wrong
from harvest import tasks
from streamweave.lib.keys import new_key

pytestmark = pytest.mark.django_db


@pytest.fixture
def events(db: None) -> list[AuditEvent]:
    """Five events, sealed."""
    made = [record("file.downloaded", by=None, detail={"number": number}) for number in range(1, 6)]
    assert sealing.seal() == 5
    return made


def findings(head: str | None = None) -> list[tuple[Wrong, str]]:
    return [(finding.wrong, finding.what) for finding in sealing.verify(Verification(), head=head)]


def sql(statement: str, *values: Any) -> None:
    with connection.cursor() as cursor:
        assert cursor.execute(statement, [_as_stored(value) for value in values]) is not None
        assert cursor.rowcount


def _as_stored(value: Any) -> Any:
    return value.hex if connection.vendor == "sqlite" and hasattr(value, "hex") else value


def verify(*args: str) -> tuple[int, str, str]:
    """Exit status, output and errors of `audit verify`."""
    out, err = StringIO(), StringIO()
    try:
        call_command("audit", "verify", *args, stdout=out, stderr=err)
    except CommandError as error:
        return error.returncode, out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


# -------------------------------------------------------------------------------------------------------- sealing


def test_events_are_numbered_from_one_without_gaps_in_their_order(events: list[AuditEvent]) -> None:
    sealed = list(AuditSeal.objects.values_list("sequence", "event"))
    assert sealed == [(number, event.pk) for number, event in enumerate(events, 1)]
    assert findings() == []


def test_what_is_sealed_is_not_sealed_again(events: list[AuditEvent]) -> None:
    assert sealing.seal() == 0
    record("tick", by=None)
    assert sealing.seal() == 1
    assert findings() == []


def test_more_than_a_batch_is_sealed_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "BATCH_EVENTS", 3)
    for _ in range(8):
        record("tick", by=None)
    assert sealing.seal() == 8
    assert findings() == []


def test_the_queries_do_not_grow_with_the_events() -> None:
    def count() -> int:
        with CaptureQueriesContext(connection) as captured:
            sealing.seal()
        return len(captured)

    record("tick", by=None)
    few = count()
    for _ in range(100):
        record("tick", by=None)
    assert count() <= few + 1  # the time of the last sealed event


def test_an_event_whose_transaction_ended_late_is_sealed(events: list[AuditEvent]) -> None:
    AuditEvent(action="late", at=timezone.now() - timedelta(minutes=30)).save()
    assert sealing.seal() == 1


def test_an_event_from_far_back_waits_for_a_seal_of_everything(events: list[AuditEvent]) -> None:
    AuditEvent(action="late", at=timezone.now() - timedelta(days=30)).save()
    assert sealing.seal() == 0
    call_command("audit", "seal", stdout=StringIO())
    assert not sealing.unsealed_events().exists()


def test_a_clock_that_was_ahead_does_not_keep_the_others_from_being_sealed() -> None:
    AuditEvent(action="ahead", at=timezone.now() + timedelta(days=400)).save()
    assert sealing.seal() == 1
    record("tick", by=None)
    assert sealing.seal() == 1


def test_a_backlog_of_days_is_sealed_whole(monkeypatch: pytest.MonkeyPatch, events: list[AuditEvent]) -> None:
    monkeypatch.setattr(sealing, "BATCH_EVENTS", 2)
    sql("UPDATE access_auditseal SET sealed_at = %s", timezone.now() - timedelta(days=9))
    sql("UPDATE access_auditevent SET at = %s", timezone.now() - timedelta(days=9))
    for days in range(8, 0, -1):
        AuditEvent(action="tick", at=timezone.now() - timedelta(days=days)).save()
    assert sealing.seal() == 8


def test_the_sweep_seals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "remind", lambda *args, **kwargs: None)
    record("tick", by=None)
    tasks.sweep()
    assert not sealing.unsealed_events().exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="SQLite has one writer")
def test_of_two_sealers_one_seals_and_the_other_does_not_wait() -> None:
    record("tick", by=None)
    sealed: list[int] = []

    def seal() -> None:
        sealed.append(sealing.seal())
        connection.close()

    with transaction.atomic():
        assert sealing._is_only_sealer()
        other = threading.Thread(target=seal)
        other.start()
        other.join(timeout=30)
        assert sealed == [0]
    assert sealing.seal() == 1


# ------------------------------------------------------------------------------------------------------ verifying


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("action", "nothing"),
        ("object_type", "access.user"),
        ("object_id", "1"),
        ("detail", '{"number": 9}'),
        ("ip", "192.0.2.9"),
        ("actor_id", "7f5bb13f-8f10-4d8f-9c3c-0d2f6f6a7f11"),
        ("signature", "v1:00000000:00"),
    ],
)
def test_a_changed_event_is_named(events: list[AuditEvent], column: str, value: str) -> None:
    sql(f"UPDATE access_auditevent SET {column} = %s WHERE id = %s", value, events[2].pk)
    ((wrong, what),) = findings()
    assert wrong is Wrong.CHANGED
    assert str(events[2].pk) in what
    assert "number 3" in what


def test_a_changed_time_is_named(events: list[AuditEvent]) -> None:
    sql("UPDATE access_auditevent SET at = %s WHERE id = %s", timezone.now(), events[2].pk)
    ((wrong, what),) = findings()
    assert (wrong, str(events[2].pk) in what) == (Wrong.CHANGED, True)


def test_a_removed_event_is_named_by_its_seal(events: list[AuditEvent]) -> None:
    sql("DELETE FROM access_auditevent WHERE id = %s", events[2].pk)
    ((wrong, what),) = findings()
    assert wrong is Wrong.REMOVED
    assert str(events[2].pk) in what


def test_an_event_removed_with_its_seal_leaves_a_gap(events: list[AuditEvent]) -> None:
    sql("DELETE FROM access_auditseal WHERE sequence IN (2, 3)")
    sql("DELETE FROM access_auditevent WHERE id IN (%s, %s)", events[1].pk, events[2].pk)
    assert findings() == [(Wrong.REMOVED, "Numbers 2 to 3 are missing, event and seal.")]


def test_an_event_whose_seal_was_removed_is_not_taken_for_a_new_one(events: list[AuditEvent]) -> None:
    sql("DELETE FROM access_auditseal WHERE sequence = 3")
    assert (Wrong.REMOVED, "Number 3 is missing, event and seal.") in findings()
    sealing.seal()
    assert (Wrong.REMOVED, "Number 3 is missing, event and seal.") in findings()


def test_an_event_added_by_another_hand_is_named_and_never_sealed(events: list[AuditEvent]) -> None:
    forged = AuditEvent(action="grant.added")
    forged.save()
    sql("UPDATE access_auditevent SET signature = %s WHERE id = %s", events[0].signature, forged.pk)
    record("tick", by=None)
    assert sealing.seal() == 1
    ((wrong, what),) = findings()
    assert wrong is Wrong.ADDED
    assert str(forged.pk) in what


def test_a_seal_added_by_another_hand_is_named(events: list[AuditEvent]) -> None:
    event = record("tick", by=None)
    seal = AuditSeal(sequence=6, event=event, event_signature=event.signature, previous="x")
    seal.save()
    assert {wrong for wrong, _ in findings()} == {Wrong.CHANGED}


def test_events_in_another_order_are_named(events: list[AuditEvent]) -> None:
    sql("DELETE FROM access_auditseal WHERE sequence = 5")
    sql("UPDATE access_auditseal SET sequence = 5 WHERE sequence = 2")
    assert {what.split(",")[0] for _, what in findings()} >= {"Number 2 is missing", "Seal 5 is not as it was written."}


def test_the_newest_events_taken_away_with_their_seals_are_missed_by_a_head_noted_before(
    events: list[AuditEvent],
) -> None:
    head = str(AuditSeal.objects.get(sequence=5))
    assert findings(head) == []
    sql("DELETE FROM access_auditseal WHERE sequence > 3")
    sql("DELETE FROM access_auditevent WHERE id IN (%s, %s)", events[3].pk, events[4].pk)
    assert findings() == []
    ((wrong, what),) = findings(head)
    assert (wrong, head in what) == (Wrong.REMOVED, True)


def test_a_new_key_in_front_leaves_the_log_verifiable(settings: Any, events: list[AuditEvent]) -> None:
    settings.ENCRYPTION_KEYS = [new_key(), *settings.ENCRYPTION_KEYS]
    record("tick", by=None)
    assert sealing.seal() == 1
    assert findings() == []


# ----------------------------------------------------------------------------------------------------- the command


def test_the_command_says_that_nothing_is_wrong_and_counts_what_waits(events: list[AuditEvent]) -> None:
    record("tick", by=None)
    status, out, err = verify()
    assert (status, err) == (0, "")
    assert "Sealed: 5. Not sealed yet: 1." in out
    (head,) = re.findall(r"Head: (\S+)", out)
    assert verify("--head", head)[0] == 0


def test_the_command_ends_with_1_if_something_was_done(events: list[AuditEvent]) -> None:
    sql("DELETE FROM access_auditevent WHERE id = %s", events[2].pk)
    status, _, err = verify()
    assert status == 1
    assert err.startswith("REMOVED: ")


def test_the_command_ends_with_2_if_a_key_is_missing(settings: Any, events: list[AuditEvent]) -> None:
    settings.ENCRYPTION_KEYS = [new_key()]
    status, _, err = verify()
    assert status == 2
    assert "STREAMWEAVE_ENCRYPTION_KEYS" in err


def test_a_head_that_is_none_is_refused(events: list[AuditEvent]) -> None:
    with pytest.raises(CommandError, match="NUMBER:SIGNATURE"):
        call_command("audit", "verify", "--head", "what", stdout=StringIO())


def test_the_command_lists_the_newest_first(make_user: Any, events: list[AuditEvent]) -> None:
    user: User = make_user("ann")
    record("group.created", by=user, detail={"name": "Core"})
    assert listed()[0].endswith('ann@example.org  group.created  -:-  {"name": "Core"}')
    assert len(listed("--limit", "2")) == 2
    assert len(listed("--actor", "ann@example.org")) == 1
    assert len(listed("--action", "file.")) == 5
    assert listed("--since", "2999-01-01") == []
    last = json.loads(listed("--json", "--action", "file.")[-1])
    assert (last["sequence"], last["detail"]) == (1, {"number": 1})


def listed(*args: str) -> list[str]:
    out = StringIO()
    call_command("audit", "list", *args, stdout=out)
    return out.getvalue().splitlines()
