"""Leases: one worker at a time holds a file; what a dead one held is taken back, lost batches in halves."""

from __future__ import annotations

import threading
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from harvest.janitor import take_back
from harvest.models import FileRecord, FileTransfer, FileVersion, HarvestSchedule, State, Status, StorageLocation

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def make(schedule: HarvestSchedule, count: int, size_bytes: int = 10) -> list[FileTransfer]:
    """`count` transfers as discovery would write them."""
    transfers = []
    for number in range(count):
        record = FileRecord.objects.create(
            instrument=schedule.instrument,
            source_path=str(number),
            source_path_key=uuid.uuid4(),
            filename=str(number),
            size_bytes=size_bytes,
            source_mtime=NOW,
        )
        version = FileVersion.objects.create(record=record, size_bytes=size_bytes, source_mtime=NOW)
        storage = schedule.default_storage_location
        transfers.append(
            FileTransfer.objects.create(
                record=record, version=version, scheduled_storage=storage, storage_location=storage
            )
        )
    return transfers


def claim(limit: int = 100, limit_bytes: int = 10**9, now: datetime = NOW) -> list[FileTransfer]:
    token = FileTransfer.objects.lease(now=now, holder="w", limit=limit, limit_bytes=limit_bytes)
    return FileTransfer.objects.held(token) if token else []


def test_a_claim_is_bounded_in_files_and_bytes(schedule: HarvestSchedule) -> None:
    make(schedule, 10)
    assert len(claim(limit=4)) == 4
    assert len(claim(limit_bytes=25)) == 2
    assert len(claim(limit_bytes=1)) == 1
    assert len(claim()) == 3
    assert claim() == []


def test_what_is_not_yet_due_given_up_or_at_an_end_is_not_claimed(schedule: HarvestSchedule) -> None:
    later, given_up, skipped, _ = make(schedule, 4)
    FileTransfer.objects.filter(pk=later.pk).update(next_attempt_at=NOW + timedelta(seconds=1))
    FileTransfer.objects.filter(pk=given_up.pk).update(given_up=True)
    FileTransfer.objects.filter(pk=skipped.pk).update(state=State.SKIPPED)

    assert len(claim()) == 1
    assert len(claim(now=NOW + timedelta(seconds=1))) == 1


@pytest.mark.django_db(transaction=True)
def test_of_many_that_claim_at_once_each_file_goes_to_one(schedule: HarvestSchedule) -> None:
    make(schedule, 40)
    claimed: list[uuid.UUID] = []
    together = threading.Barrier(8)

    def work() -> None:
        together.wait()
        try:
            while held := claim(limit=3):
                claimed.extend(transfer.pk for transfer in held)
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while held := claim(limit=3):
        claimed.extend(transfer.pk for transfer in held)

    assert len(claimed) == len(set(claimed)) == 40


def test_a_lost_batch_is_tried_again_in_halves_and_only_single_losses_count(schedule: HarvestSchedule) -> None:
    make(schedule, 8)
    now, sizes = NOW, []
    while held := claim(limit=8, now=now):
        sizes.append(len(held))
        now += timedelta(seconds=settings.LEASE_SECONDS + 1)
        assert take_back(now) == len(held)
        if len(sizes) > 100:
            break

    assert sizes[:4] == [8, 4, 2, 1]
    assert sizes.count(1) == 8 * settings.MAX_LOSSES
    for transfer in FileTransfer.objects.all():
        assert (transfer.status, transfer.losses, transfer.error_code) == (
            Status.FAILED,
            settings.MAX_LOSSES,
            "worker_lost",
        )


def test_a_lease_that_lives_is_not_taken_back(schedule: HarvestSchedule) -> None:
    make(schedule, 1)
    claim()
    assert take_back(NOW + timedelta(seconds=settings.LEASE_SECONDS - 1)) == 0


def test_the_public_word_says_whether_somebody_works_on_it(schedule: HarvestSchedule) -> None:
    waiting, failed, skipped, done, working = make(schedule, 5)
    FileTransfer.objects.filter(pk=failed.pk).update(given_up=True)
    FileTransfer.objects.filter(pk=skipped.pk).update(state=State.VANISHED)
    FileTransfer.objects.filter(pk=done.pk).update(
        state=State.VERIFIED,
        checksum_verified=True,
        source_checksum="1" * 16,
        dest_checksum="1" * 16,
        stored_path="1",
        stored_path_key=uuid.uuid4(),
        completed_at=NOW,
    )
    lease = {"lease_token": uuid.uuid4(), "lease_expires_at": timezone.now() + timedelta(seconds=30)}
    FileTransfer.objects.filter(pk=working.pk).update(**lease)

    expected = {
        waiting: Status.PENDING,
        failed: Status.FAILED,
        skipped: Status.SKIPPED,
        done: Status.COMPLETED,
        working: Status.IN_PROGRESS,
    }
    for transfer, word in expected.items():
        transfer.refresh_from_db()
        assert transfer.status == word
        assert list(FileTransfer.objects.with_status(word)) == [transfer]


@pytest.mark.parametrize(
    "lie",
    [
        {"checksum_verified": False},
        {"dest_checksum": "2" * 16},
        {"source_checksum": None},
        {"dest_checksum": None},
        {"stored_path": None, "stored_path_key": None},
        {"completed_at": None},
    ],
)
def test_the_database_forbids_completed_without_verification(schedule: HarvestSchedule, lie: dict[str, object]) -> None:
    make(schedule, 1)
    honest: dict[str, object] = {
        "state": State.AVAILABLE,
        "checksum_verified": True,
        "source_checksum": "1" * 16,
        "dest_checksum": "1" * 16,
        "stored_path": "1",
        "stored_path_key": uuid.uuid4(),
        "completed_at": NOW,
    }
    with pytest.raises(IntegrityError), transaction.atomic():
        FileTransfer.objects.update(**{**honest, **lie})
    FileTransfer.objects.update(**honest)


def test_two_files_cannot_reserve_one_path_of_a_storage(
    schedule: HarvestSchedule, second_archive: StorageLocation
) -> None:
    first, second = make(schedule, 2)
    key = uuid.uuid4()
    FileTransfer.objects.filter(pk=first.pk).update(stored_path="x", stored_path_key=key)
    with pytest.raises(IntegrityError), transaction.atomic():
        FileTransfer.objects.filter(pk=second.pk).update(stored_path="x", stored_path_key=key)
    FileTransfer.objects.filter(pk=second.pk).update(
        storage_location=second_archive, stored_path="x", stored_path_key=key
    )
