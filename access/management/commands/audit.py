"""manage.py audit"""

from __future__ import annotations

import json
from argparse import RawDescriptionHelpFormatter
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.serializers.json import DjangoJSONEncoder
from django.utils.dateparse import parse_datetime

from access import sealing
from access.models import AuditEvent
from access.sealing import Verification, Wrong

TAMPERED, NOT_CHECKED = 1, 2


class Command(BaseCommand):
    help = """Shows the audit log, and checks that nobody has changed it.

  list     the newest events, one a line
  verify   goes through the whole log and names every event that was changed, removed or added by another hand
  seal     seals the events that are not sealed yet; workers do that on their own every few seconds

Exit status of verify: 0 if nothing is wrong (events that wait for their seal are told, and are not wrong); 1 if
something was changed, removed or added; 2 if nothing of that was found but some events cannot be checked, because
the key they were signed with is missing.

verify ends with the head of the chain. Keep it where whoever may write to the database cannot: a later
`verify --head HEAD` then also notices when the newest events were taken away together with their seals."""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        return super().create_parser(prog_name, subcommand, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_subparsers(dest="what", required=True, parser_class=CommandParser)
        listing = what.add_parser("list", help="show the newest events")
        listing.add_argument("--actor", metavar="EMAIL")
        listing.add_argument("--action", help="such as grant.added, or a beginning, such as grant.")
        listing.add_argument("--object", metavar="TYPE[:ID]", help="such as harvest.instrument")
        listing.add_argument("--since", type=_time, metavar="TIME", help="ISO 8601; UTC unless it says otherwise")
        listing.add_argument("--until", type=_time, metavar="TIME", help="before this time")
        listing.add_argument("--limit", type=int, default=50, help="how many at most (default: %(default)s)")
        listing.add_argument("--json", action="store_true", help="one JSON object a line")
        verifying = what.add_parser("verify", help="check the whole log")
        verifying.add_argument("--head", help="a head noted earlier, which must still be there")
        what.add_parser("seal", help="seal what is not sealed yet, also far back")

    def handle(self, *args: Any, **options: Any) -> None:
        match options["what"]:
            case "list":
                self._list(options)
            case "verify":
                self._verify(options["head"])
            case "seal":
                self.stdout.write(f"Sealed: {sealing.seal(everything=True):,}.")

    def _list(self, options: dict[str, Any]) -> None:
        object_type, _, object_id = (options["object"] or "").partition(":")
        events = AuditEvent.objects.matching(
            actor_email=options["actor"],
            action=options["action"],
            object_type=object_type or None,
            object_id=object_id or None,
            since=options["since"],
            until=options["until"],
        )
        for event in events.select_related("actor", "seal").order_by("-at", "-id")[: max(0, options["limit"])]:
            self.stdout.write(_as_json(event) if options["json"] else _line(event))

    def _verify(self, head: str | None) -> None:
        state = Verification()
        found = set()
        try:
            for finding in sealing.verify(state, head=head):
                found.add(finding.wrong)
                self.stderr.write(f"{finding.wrong.upper()}: {finding.what}")
        except sealing.HeadError as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"Sealed: {state.sealed:,}. Not sealed yet: {state.unsealed:,}.")
        if state.head:
            self.stdout.write(f"Head: {state.head}")
        if found - {Wrong.UNCHECKED}:
            raise CommandError("The audit log was tampered with; see above.", returncode=TAMPERED)
        if found:
            raise CommandError("Not every event could be checked; see above.", returncode=NOT_CHECKED)
        self.stdout.write(self.style.SUCCESS("Nothing was changed, removed or added."))


def _as_json(event: AuditEvent) -> str:
    names = ("id", "at", "actor_id", "actor_email", "action", "object_type", "object_id", "detail", "ip", "sequence")
    return json.dumps({name: getattr(event, name) for name in names}, cls=DjangoJSONEncoder)


def _line(event: AuditEvent) -> str:
    who = event.actor_email or event.actor_id or "-"
    what = f"{event.object_type or '-'}:{event.object_id or '-'}"
    detail = json.dumps(event.detail, ensure_ascii=False)
    return f"{event.at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}  {who}  {event.action}  {what}  {detail}"


def _time(text: str) -> datetime:
    found = parse_datetime(text) or parse_datetime(f"{text}T00:00:00")
    if found is None:
        raise ValueError(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
