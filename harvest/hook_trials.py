"""A hook tried on files that are here already: what it would answer. Nothing is written, moved or granted."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass, field
from uuid import UUID

from harvest.connections import Connections
from harvest.facts import facts_of
from harvest.models import FileTransfer, Instrument
from hooks import engine
from hooks.decisions import AfterTransfer, BeforeTransfer
from hooks.facts import FileFacts
from hooks.models import HookConfig, Trigger

LOOKED_AT = 5
"""A version may be on its way to several storages; this many transfers are looked at for each file wanted."""


class NoSuchFilesError(Exception):
    """Some of the files cannot be tried: there is none with the id, or none stored for a hook after the transfer."""

    def __init__(self, ids: Collection[UUID]) -> None:
        super().__init__(", ".join(str(pk) for pk in ids))


@dataclass(frozen=True, slots=True)
class Trial:
    """What the hook said about one file: `before` the transfer (None if it is a hook after it), and `after` it."""

    transfer: FileTransfer
    before: BeforeTransfer | None = None
    after: AfterTransfer = field(default_factory=AfterTransfer)


def try_hook(hook: HookConfig, *, limit: int, file_ids: Collection[UUID] = ()) -> list[Trial]:
    """Ask `hook`, enabled or not, about the newest `limit` files that it would meet, or about those with `file_ids`.

    A hook after the transfer is asked about stored files, whose content it may read. Scripts are run and receivers
    are asked as in a harvest. Raises NoSuchFilesError.
    """
    transfers = _chosen(hook, limit, file_ids)
    if hook.trigger == Trigger.PRE_TRANSFER:
        facts = [facts_of(transfer, transfer.record.instrument) for transfer in transfers]
        decisions = engine.before_transfer([hook], facts, record=False)
        return [Trial(one, before=decision) for one, decision in zip(transfers, decisions, strict=True)]
    with ExitStack() as stack:
        opened: dict[Instrument, Connections] = {}
        for transfer in transfers:
            instrument = transfer.record.instrument
            if instrument not in opened:
                opened[instrument] = stack.enter_context(Connections(instrument))
        facts = [
            facts_of(transfer, transfer.record.instrument, opened[transfer.record.instrument]) for transfer in transfers
        ]
        return [Trial(one, after=answer) for one, answer in zip(transfers, _ask_after(hook, facts), strict=True)]


def _ask_after(hook: HookConfig, facts: list[FileFacts]) -> list[AfterTransfer]:
    """Builtins that grant access are asked apart from all others; each hook answers to one of the two."""
    enriched = engine.enrich([hook], facts, record=False)
    granted = engine.assign_access([hook], facts, record=False)
    return [
        AfterTransfer(found.metadata | more.metadata, found.grants + more.grants, found.problems + more.problems)
        for found, more in zip(enriched, granted, strict=True)
    ]


def _chosen(hook: HookConfig, limit: int, file_ids: Collection[UUID]) -> list[FileTransfer]:
    """One transfer of each file, of its newest version."""
    transfers = FileTransfer.objects.select_related("record__instrument", "version", "storage_location")
    if hook.trigger == Trigger.POST_TRANSFER:
        transfers = transfers.stored()
    if file_ids:
        transfers = transfers.filter(record__in=file_ids)
        limit = len(file_ids)
    elif hook.instrument_id:
        transfers = transfers.filter(record__instrument=hook.instrument_id)
    chosen: dict[UUID, FileTransfer] = {}
    for transfer in transfers.order_by("-created_at", "-id")[: limit * LOOKED_AT]:
        chosen.setdefault(transfer.record_id, transfer)
    if missing := [pk for pk in file_ids if pk not in chosen]:
        raise NoSuchFilesError(missing)
    return list(chosen.values())[:limit]
