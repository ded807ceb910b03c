"""Runs begun by an administrator: written down first, then the workers are reminded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rest_framework import serializers

from access.api.resources import writing
from access.models import User
from harvest import tasks
from harvest.models import HarvestSchedule

NOT_SENT = (
    "The run is queued, but the workers could not be told of it, because the broker cannot be reached. It begins by"
    " itself as soon as the broker is back."
)


class StartedRunSerializer(serializers.Serializer[Any]):
    """The run that was begun. `flow_run_id` is what clients of the original call its id."""

    flow_run_id = serializers.UUIDField(source="run.pk")
    schedule_id = serializers.UUIDField(source="run.schedule_id")
    run_id = serializers.UUIDField(source="run.pk")
    status = serializers.CharField(source="run.status")
    warning = serializers.CharField(allow_null=True, help_text="Why it may take longer than usual, or null.")


def start(schedules: Iterable[HarvestSchedule], *, by: User) -> list[dict[str, Any]]:
    """A run of each of `schedules`, now or right after the one that is under way, for StartedRunSerializer.

    The runs are in the database when this returns, whether or not the broker could be reached; the sweep reminds of
    them again. Callers have asked `runs.obstacle` before.
    """
    with writing():
        begun = [tasks.write_down(schedule, by=by) for schedule in schedules]
    warning = None if tasks.remind(begun) else NOT_SENT
    return [{"run": run, "warning": warning} for run in begun]
