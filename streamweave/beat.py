"""The scheduler of beat: django-celery-beat's, for several beats that may begin at the same moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection
from django_celery_beat.schedulers import DatabaseScheduler

BEGIN_LOCK = 0x42454154
"""Key of the PostgreSQL advisory lock under which a beat writes the fixed tasks down."""


class Scheduler(DatabaseScheduler):
    """Writes the fixed tasks of the settings down before django-celery-beat does, one beat at a time.

    It updates each or else creates it. Of two beats that find no row, the second is refused by the first one's name,
    says so with a traceback, and does without the task until it reads all rows again. Where the rows are there already,
    both only update them.
    """

    def setup_schedule(self) -> None:
        with _one_at_a_time():
            for name, entry in self.app.conf.beat_schedule.items():
                self.Entry.from_entry(name, app=self.app, **entry)
        super().setup_schedule()


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Held by the connection and not by a transaction, for django-celery-beat locks its rows in another order in one
    transaction than in several. On SQLite, whose transactions lock the database when they begin, none is needed."""
    if connection.vendor != "postgresql":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [BEGIN_LOCK])
        try:
            yield
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [BEGIN_LOCK])
