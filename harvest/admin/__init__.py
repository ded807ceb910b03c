"""Admin pages of the harvest.

django-celery-beat's own pages are left out: each of its rows here belongs to a schedule or to the settings, which
write it anew, and a change made there would stop harvests without saying so.
"""

from __future__ import annotations

from django.contrib import admin
from django_celery_beat.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    SolarSchedule,
)

from harvest.admin import equipment, files, hooks, runs, schedules

__all__ = ["equipment", "files", "hooks", "runs", "schedules"]

admin.site.unregister([ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule])
admin.site.site_header = admin.site.site_title = "StreamWeave"
admin.site.index_title = "Administration"
