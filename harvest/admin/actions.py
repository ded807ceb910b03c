"""What the pages of schedules and instruments both offer: harvest now, dry run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field

from django.contrib import messages
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.html import format_html

from access.admin.base import Page, acting
from harvest import dry_run, runs, tasks
from harvest.admin.base import link
from harvest.dry_run import Course, Plan
from harvest.models import HarvestSchedule
from harvest.storage.base import StorageError

DRY_RUN_ROWS = 500
DRY_RUN_SECONDS = 20
"""A page waits no longer; the command shows everything."""


def harvest_now(page: Page, request: HttpRequest, schedules: Iterable[HarvestSchedule]) -> None:
    """A run of each, now or right after the one that is under way."""
    for schedule in schedules:
        why_not = runs.obstacle(schedule)
        if why_not is not None:
            page.message_user(request, f"{schedule}: {why_not}", messages.ERROR)
            continue
        run = tasks.trigger(schedule, by=acting(request))
        what = format_html("{}: {}.", schedule, link(run, "the run is queued"))
        page.message_user(request, what, messages.SUCCESS)


@dataclass
class Preview:
    """What a dry run by one schedule has shown so far."""

    schedule: HarvestSchedule
    plans: list[Plan] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    complete: bool = False
    error: str | None = None

    @property
    def totals(self) -> list[tuple[str, int]]:
        return [(course.value, self.counts[course]) for course in Course if self.counts[course]]


def dry_run_page(page: Page, request: HttpRequest, schedules: Iterable[HarvestSchedule]) -> TemplateResponse:
    """What harvests by `schedules` would do, as far as it fits a page."""
    deadline = time.monotonic() + DRY_RUN_SECONDS
    context = {
        **page.admin_site.each_context(request),
        "title": "Dry run",
        "opts": page.opts,
        "previews": [_preview(schedule, deadline) for schedule in schedules],
        "limit": DRY_RUN_ROWS,
    }
    return TemplateResponse(request, "admin/harvest/dry_run.html", context)


def _preview(schedule: HarvestSchedule, deadline: float) -> Preview:
    preview = Preview(schedule)
    try:
        with closing(dry_run.plan(schedule)) as plans:
            for plan in plans:
                preview.counts[plan.course] += 1
                if plan.course is not Course.LEAVE:
                    preview.plans.append(plan)
                if len(preview.plans) >= DRY_RUN_ROWS or time.monotonic() > deadline:
                    return preview
    except StorageError as error:
        preview.error = str(error)
    else:
        preview.complete = True
    return preview
