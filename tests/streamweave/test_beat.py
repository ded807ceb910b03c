"""Several beats begin at the same moment."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django_celery_beat.models import IntervalSchedule, PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler

from streamweave.beat import Scheduler
from streamweave.celery import app

BEATS = 6


def begin_together(kind: type[DatabaseScheduler]) -> list[set[str]]:
    """Beats that begin at the same moment; the names of the tasks that each has."""
    barrier = threading.Barrier(BEATS)

    def begin() -> set[str]:
        try:
            connection.ensure_connection()
            barrier.wait()
            return set(kind(app=app)._schedule or ())
        finally:
            connection.close()

    with ThreadPoolExecutor(BEATS) as pool:
        return [future.result() for future in [pool.submit(begin) for _ in range(BEATS)]]


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor != "postgresql", reason="on SQLite one transaction writes at a time anyway")
def test_beats_that_begin_together_all_have_the_fixed_tasks_and_say_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each that has found no row waits a moment for others that find none either."""
    save, all_of_them = PeriodicTask.save, threading.Barrier(BEATS)

    def save_together(task: PeriodicTask, *args: Any, **kwargs: Any) -> None:
        if task._state.adding:
            with suppress(threading.BrokenBarrierError):
                all_of_them.wait(timeout=0.5)
        save(task, *args, **kwargs)

    monkeypatch.setattr(PeriodicTask, "save", save_together)
    expected = set(settings.CELERY_BEAT_SCHEDULE)
    with caplog.at_level(logging.WARNING):
        assert begin_together(Scheduler) == [expected] * BEATS
    assert [record.getMessage() for record in caplog.records] == []
    assert set(PeriodicTask.objects.values_list("name", flat=True)) == expected
    every = IntervalSchedule.objects.values_list("every", flat=True)
    assert sorted(every) == sorted({settings.TICK_SECONDS, settings.SWEEP_SECONDS})


def test_the_settings_name_it() -> None:
    assert app.conf.beat_scheduler == f"{Scheduler.__module__}:{Scheduler.__name__}"
