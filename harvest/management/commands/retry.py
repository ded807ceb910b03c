"""manage.py retry"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.core.management.base import CommandError, CommandParser
from django.db.models import Q

from harvest import tasks
from harvest.management.asked import USAGE, PlainCommand, one_of
from harvest.models import FileTransfer, HarvestRun, Instrument, StorageLocation
from harvest.models.transfers import FileTransferQuerySet


class Command(PlainCommand):
    help = """Sends failed, waiting and cancelled files on their way again, now.

Failed: given up, or to be tried again later. Waiting: too young, locked, without its marker; what they wait for is
looked at again at once. Cancelled: with their run. Several options narrow the choice down together. Workers are
reminded; without a worker, `manage.py harvest` goes on with them.

Exit status: 0, also if there was nothing to retry; 2 if there is no such instrument, storage, run or file."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--instrument", metavar="NAME", help="name or id: only its files")
        parser.add_argument("--storage", metavar="NAME", help="name or id of a storage location: only what goes there")
        parser.add_argument("--run", metavar="ID", help="only the files of this run")
        parser.add_argument("--file", metavar="FILE", help="ARK, id or path on the share: only this file")
        parser.add_argument("--all", action="store_true", help="everything that can be retried")

    def handle(self, *args: Any, **options: Any) -> None:
        narrowed = [options[name] for name in ("instrument", "storage", "run", "file")]
        if options["all"] == any(narrowed):
            raise CommandError("Say which files: --instrument, --storage, --run, --file, or --all.", returncode=USAGE)
        chosen = _narrowed(FileTransfer.objects.all(), options)
        concerned = chosen.retriable().order_by().values("record__instrument")
        paused = list(Instrument.objects.filter(paused_at__isnull=False, pk__in=concerned))
        count = tasks.retry(chosen)
        going = "1 file goes on its way again." if count == 1 else f"{count:,} files go on their way again."
        self.say(going if count else "There is nothing to retry.")
        if count:
            self.say("Workers have been reminded; without a worker, `manage.py harvest` goes on with them.")
        for instrument in paused:
            self.say(
                self.style.WARNING(
                    f"The instrument “{instrument}” is paused, and nothing of it goes on: {instrument.paused_reason} "
                    "Correct its credentials, or `manage.py check_instrument --resume`."
                )
            )


def _narrowed(transfers: FileTransferQuerySet, options: dict[str, Any]) -> FileTransferQuerySet:
    if options["instrument"]:
        instrument = one_of(Instrument.objects.all(), options["instrument"], "instrument")
        transfers = transfers.filter(record__instrument=instrument)
    if options["storage"]:
        location = one_of(StorageLocation.objects.all(), options["storage"], "storage location")
        transfers = transfers.filter(storage_location=location)
    if options["run"]:
        run_id = _uuid(options["run"])
        run = HarvestRun.objects.filter(pk=run_id).first() if run_id else None
        if run is None:
            raise CommandError(f"There is no run “{options['run']}”.", returncode=USAGE)
        transfers = transfers.filter(run=run)
    if options["file"]:
        word = options["file"]
        files = Q(record__persistent_id=word) | Q(record__source_path=word)
        if file_id := _uuid(word):
            files |= Q(record=file_id) | Q(pk=file_id)
        if not transfers.filter(files).exists():
            raise CommandError(f"There is no file “{word}”; give its ARK, its id or its path.", returncode=USAGE)
        transfers = transfers.filter(files)
    return transfers


def _uuid(word: str) -> UUID | None:
    try:
        return UUID(word)
    except ValueError:
        return None
