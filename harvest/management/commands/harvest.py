"""manage.py harvest"""

from __future__ import annotations

from collections import Counter
from typing import Any

from django.core.management.base import CommandError, CommandParser

from harvest import dry_run, foreground, reports, runs
from harvest.management.asked import FOUND_WRONG, STOPPED, USAGE, PlainCommand, one_of, one_schedule
from harvest.management.progress import Progress
from harvest.models import HarvestRun, HarvestSchedule, Instrument, RunStatus
from harvest.storage.base import StorageError
from streamweave.lib.logs import one_line


class Command(PlainCommand):
    help = """Harvests instruments in this process; no worker, beat or broker is needed, and none is in the way.

An instrument is harvested by each of its enabled schedules, one after the other. If a worker has a run of the same
schedule under way, that run is followed (and helped) to its end. Files whose copy failed are tried again while that is
soon; files that wait with a reason (too young, locked, ...) do not keep the command: workers go on with them, and so
does the next harvest. Ctrl-C leaves everything in a state from which the next harvest goes on.

--dry-run says for each file what would be taken, skipped, held back or waited for, and why, and writes nothing. Files
that are stored already are counted only, unless -v 2 is given.

Exit status: 0 if every file is stored, skipped or waiting; 1 if something failed (the causes are listed); 2 if there
is no such instrument or schedule."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("instruments", nargs="*", metavar="INSTRUMENT", help="name or id")
        parser.add_argument("--schedule", metavar="ID", help="harvest by this schedule only, even if it is disabled")
        parser.add_argument("--all", action="store_true", help="harvest by every enabled schedule")
        parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
        parser.add_argument("--quiet", action="store_true", help="say only what went wrong")
        parser.add_argument(
            "--wait",
            type=float,
            default=120,
            metavar="SECONDS",
            help="how long at most to wait for the next attempt (default: %(default)s)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        schedules = _schedules(options)
        try:
            wrong = self._dry_run(schedules, options) if options["dry_run"] else self._harvest(schedules, options)
        except KeyboardInterrupt:
            raise CommandError(
                "Stopped. What is stored stays; the next harvest, or a worker, goes on from here.", returncode=STOPPED
            ) from None
        if wrong:
            raise CommandError("\n".join(wrong), returncode=FOUND_WRONG)

    def _harvest(self, schedules: list[HarvestSchedule], options: dict[str, Any]) -> list[str]:
        """Harvest by one schedule after the other. What went wrong, a line each."""
        ended, wrong = [], []
        for schedule in schedules:
            name = one_line(str(schedule))
            why_not = runs.obstacle(schedule)
            if why_not is not None:
                wrong.append(f"{name}: {why_not}")
                continue
            run, left = self._follow(schedule, options)
            ended.append(run)
            if left is not None:
                self._say_unless_quiet(options, f"{name}: {left} Workers go on then, and so does the next harvest.")
            if left is None and run.status == RunStatus.COMPLETED:
                continue
            causes = [f"{name}: {cause}" for cause in reports.problems(run)]
            if left is None or causes or run.instrument.paused_at:
                wrong += causes or [f"{name}: {left or run.get_status_display()}"]
        if ended:
            self._say_unless_quiet(options, f"\n{reports.runs_table(ended)}")
            for run in ended:
                for cause in reports.other_ends(run):
                    self._say_unless_quiet(options, f"{one_line(str(run.schedule or run))}: {cause}")
        return wrong

    def _follow(self, schedule: HarvestSchedule, options: dict[str, Any]) -> tuple[HarvestRun, str | None]:
        def say(text: str) -> None:
            progress.end()
            self._say_unless_quiet(options, f"{one_line(str(schedule))}: {text}")

        def show(run: HarvestRun) -> None:
            if not options["quiet"]:
                progress(run)

        progress = Progress(self.stdout, terminal=self.stdout.isatty())
        run = foreground.begin(schedule, say=say)
        say("harvesting")
        try:
            left = foreground.follow(run, patience_seconds=options["wait"], show=show, say=say)
        finally:
            progress.end()
        return HarvestRun.objects.get(pk=run.pk), left

    def _dry_run(self, schedules: list[HarvestSchedule], options: dict[str, Any]) -> list[str]:
        wrong = []
        for schedule in schedules:
            self._say_unless_quiet(options, f"{one_line(str(schedule))}, dry run:")
            files: Counter[str] = Counter()
            size_bytes: Counter[str] = Counter()
            try:
                for plan in dry_run.plan(schedule):
                    files[plan.course] += 1
                    size_bytes[plan.course] += plan.size_bytes or 0
                    if plan.course is not dry_run.Course.LEAVE or options["verbosity"] > 1:
                        self._say_plan(plan, options)
            except StorageError as error:
                wrong.append(f"{one_line(str(schedule))}: {error}")
                continue
            totals = ", ".join(
                f"{course.value} {files[course]:,} ({size_bytes[course]:,} bytes)"
                for course in dry_run.Course
                if files[course]
            )
            self._say_unless_quiet(options, f"  {totals or 'The share holds no file.'}")
            if files[dry_run.Course.UNREADABLE] or files[dry_run.Course.HOLD]:
                wrong.append(f"{one_line(str(schedule))}: not every file could be read or decided about; see above.")
        return wrong

    def _say_plan(self, plan: dry_run.Plan, options: dict[str, Any]) -> None:
        troubled = plan.course in (dry_run.Course.UNREADABLE, dry_run.Course.HOLD)
        if troubled or not options["quiet"]:
            size = "–" if plan.size_bytes is None else f"{plan.size_bytes:,}"
            self.say(f"  {plan.course.value:10} {size:>15}  {one_line(plan.path)}  ({one_line(plan.reason)})")

    def _say_unless_quiet(self, options: dict[str, Any], text: str) -> None:
        if not options["quiet"]:
            self.say(text)


def _schedules(options: dict[str, Any]) -> list[HarvestSchedule]:
    """The schedules that were asked for. Raises CommandError(usage)."""
    if sum(map(bool, (options["instruments"], options["schedule"], options["all"]))) != 1:
        raise CommandError("Name instruments, or give --schedule or --all: one of these.", returncode=USAGE)
    if options["schedule"]:
        return [one_schedule(options["schedule"])]
    rows = HarvestSchedule.objects.select_related("instrument", "default_storage_location")
    if options["all"]:
        return list(rows.active())
    schedules: dict[Any, HarvestSchedule] = {}
    for word in options["instruments"]:
        instrument = one_of(Instrument.objects.alive(), word, "instrument")
        of_it = list(rows.alive().filter(instrument=instrument))
        enabled = [schedule for schedule in of_it if schedule.enabled]
        if not enabled:
            disabled = "".join(f"\n  {schedule.pk}  {one_line(str(schedule))}" for schedule in of_it)
            what = f"only disabled schedules; name one with --schedule:{disabled}" if of_it else "no schedule yet."
            raise CommandError(f"The instrument “{instrument}” has {what}", returncode=USAGE)
        schedules |= {schedule.pk: schedule for schedule in enabled}
    return list(schedules.values())
