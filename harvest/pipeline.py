"""The way of a file, from seen to available. Read it from top to bottom.

Files walk in batches. Each stage takes the transfers of the batch that are in its state, does its one thing, and moves
those that succeeded; the others leave the batch with a reason. Every stage may run twice with the same result.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import groupby
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from access.grants import GrantRow, grant_many
from harvest import completion
from harvest.batch import Batch
from harvest.connections import Connections, pause_if_refused
from harvest.copies import carry, verify
from harvest.facts import facts_of
from harvest.models import FileTransfer, LeaseLostError, State, StorageLocation
from harvest.storage.base import StorageError
from harvest.transfer import SourceError
from hooks import engine
from hooks.decisions import BeforeTransfer, Verdict
from hooks.models import HookConfig
from streamweave.lib import bulk
from streamweave.lib.shutdown import StoppingError

log = logging.getLogger(__name__)

Transfers = Sequence[FileTransfer]
Decided = tuple[FileTransfer, BeforeTransfer]


def advance(batch: Batch, connections: Connections) -> None:
    """Take every transfer of the batch as far as it goes, then release what is left.

    Raises LeaseLostError, after which nothing of the batch is written any more, and StoppingError, after giving the
    batch back as it stands. Anything unforeseen is recorded on the transfers of the stage, and logged.
    """
    for state, stage in STAGES:
        transfers = batch.in_state(state)
        if not transfers:
            continue
        try:
            stage(batch, connections, transfers)
        except LeaseLostError:
            raise
        except StoppingError:
            batch.release()
            raise
        except SourceError as error:
            connections.forget_broken()
            pause_if_refused(batch.run.instrument, error.error)
            batch.fail_by(batch.in_state(state), "source", error.error)
        except Exception as error:
            log.exception("stage %s of run %s", state, batch.run.pk)
            connections.forget_broken()
            batch.fail(batch.in_state(state), state.value, "internal", f"{type(error).__name__}: {error}")
    batch.release()


# ------------------------------------------------------------------------------------------------------------- accept


def accept(batch: Batch, connections: Connections, transfers: Transfers) -> None:
    """Discovered → accepted: the hooks before the transfer take it, skip it (and say why), or redirect it."""
    hooks = HookConfig.objects.active_for(batch.run.instrument_id, "pre_transfer")
    batch.hold_for(engine.longest_seconds(hooks))
    decisions = engine.before_transfer(hooks, [facts_of(transfer, batch.run.instrument) for transfer in transfers])
    skipped: list[FileTransfer] = []
    taken: list[Decided] = []
    redirected: list[Decided] = []
    for transfer, decision in zip(transfers, decisions, strict=True):
        if decision.verdict is Verdict.HOLD:
            batch.fail([transfer], "hook", "hook_failed", f"{decision.hook_name}: {decision.reason}")
        elif decision.verdict is Verdict.SKIP:
            transfer.reason = f"{decision.hook_name}: {decision.reason}"
            skipped.append(transfer)
        else:
            transfer.sub_path = decision.sub_path
            (redirected if decision.storage else taken).append((transfer, decision))
    batch.end(skipped, State.SKIPPED)
    taken += _redirect(batch, redirected)
    batch.move([transfer for transfer, _ in taken], State.ACCEPTED, "storage_location_id", "sub_path")


def _redirect(batch: Batch, redirected: list[Decided]) -> list[Decided]:
    """Those of `redirected` whose new storage exists and has no copy of the version yet."""
    if not redirected:
        return []
    by_word: dict[str, StorageLocation] = {}
    for location in StorageLocation.objects.alive().filter(enabled=True):
        by_word |= {str(location.pk): location, location.name: location}
    versions = [transfer.version_id for transfer, _ in redirected]
    others = FileTransfer.objects.filter(version__in=versions).exclude(state=State.SKIPPED)
    there = set(others.values_list("version_id", "storage_location_id", "id"))
    going, doubled = [], []
    for transfer, decision in redirected:
        location = by_word.get(decision.storage or "")
        if location is None:
            message = f"{decision.hook_name}: there is no enabled storage location “{decision.storage}”."
            batch.fail([transfer], "hook", "unknown_storage", message)
        elif any(v == transfer.version_id and s == location.pk and t != transfer.pk for v, s, t in there):
            transfer.reason = f"{decision.hook_name}: “{location}” has or gets this version already."
            doubled.append(transfer)
        else:
            transfer.storage_location = location
            going.append((transfer, decision))
    batch.end(doubled, State.SKIPPED)
    return going


# ------------------------------------------------------------------------------------------------------------- settle


def settle(batch: Batch, connections: Connections, transfers: Transfers) -> None:
    """Accepted → ready: the instrument's completion policy says that the file is complete; or it waits and says why."""
    instrument = batch.run.instrument
    source = connections.source() if completion.asks_the_share(instrument) else None
    now = timezone.now() + timedelta(seconds=batch.run.clock_offset_seconds or 0)
    complete, waits, gone = [], [], []
    for transfer, verdict in completion.judge(instrument, transfers, source, now):
        match verdict:
            case completion.Wait():
                waits.append((transfer, verdict))
            case completion.Changed(entry):
                batch.settle_anew(transfer, entry)
            case completion.Gone():
                gone.append(transfer)
            case StorageError():
                batch.fail_by([transfer], "source", verdict)
            case None:
                complete.append(transfer)
        batch.keep()
    ours = timezone.now() - now
    for (reason, until), group in groupby(waits, key=lambda pair: (pair[1].reason, pair[1].until)):
        batch.wait([transfer for transfer, _ in group], reason, until + ours, "looks", "unchanged_since")
    batch.vanish(gone)
    for transfer in complete:
        transfer.waiting_reason = None
    batch.move(complete, State.READY, "waiting_reason", "looks", "unchanged_since")


# ---------------------------------------------------------------------------------------------------- carry and verify

# Ready → carried → verified: the bytes. See harvest/copies.py.


# ------------------------------------------------------------------------------------------------------------- enrich


def enrich(batch: Batch, connections: Connections, transfers: Transfers) -> None:
    """Verified → enriched: the hooks after the transfer find metadata in path and content, once per version."""
    hooks = HookConfig.objects.active_for(batch.run.instrument_id, "post_transfer")
    batch.hold_for(engine.longest_seconds(hooks))
    fresh = [transfer for transfer in transfers if transfer.version.enriched_at is None]
    facts = [facts_of(transfer, batch.run.instrument, connections) for transfer in fresh]
    now = timezone.now()
    enriched = []
    for transfer, found in zip(fresh, engine.enrich(hooks, facts), strict=True):
        if found.problems:
            batch.fail([transfer], "hook", "hook_failed", "; ".join(found.problems))
            continue
        transfer.record.metadata = {**transfer.record.metadata, **found.metadata}
        transfer.version.enriched_at = now
        transfer.version.proposed_grants = [[grant.grantee_type, grant.grantee] for grant in found.grants]
        enriched.append(transfer)
    with transaction.atomic():
        with_metadata = [transfer.record for transfer in enriched if transfer.record.metadata]
        bulk.write(with_metadata, ["metadata"])
        bulk.write([transfer.version for transfer in enriched], ["enriched_at", "proposed_grants"])
        batch.move([transfer for transfer in transfers if transfer.version.enriched_at], State.ENRICHED)


# -------------------------------------------------------------------------------------------------------------- grant


def grant(batch: Batch, connections: Connections, transfers: Transfers) -> None:
    """Enriched → available: the hooks decide who may see it, access writes it down."""
    hooks = HookConfig.objects.active_for(batch.run.instrument_id, "post_transfer")
    facts = [facts_of(transfer, batch.run.instrument) for transfer in transfers]
    rows: list[GrantRow] = []
    problems: dict[UUID, list[str]] = {}
    for transfer, found in zip(transfers, engine.assign_access(hooks, facts), strict=True):
        asked = [(request.grantee_type, request.grantee) for request in found.grants]
        asked += [(kind, grantee) for kind, grantee in transfer.version.proposed_grants]
        for kind, grantee in asked:
            if kind != "owner":
                rows.append(GrantRow(transfer.record_id, kind, grantee))
            elif transfer.record.owner_id is not None:
                rows.append(GrantRow(transfer.record_id, "user", transfer.record.owner_id))
        if found.problems:
            problems[transfer.record_id] = list(found.problems)
    for row, reason in grant_many(rows, source="hook").refused:
        problems.setdefault(row.file_id, []).append(reason)
    for transfer in transfers:
        if transfer.record_id in problems:
            batch.fail([transfer], "hook", "hook_failed", "; ".join(problems[transfer.record_id]))
    batch.finish([transfer for transfer in transfers if transfer.record_id not in problems])


STAGES: tuple[tuple[State, Callable[[Batch, Connections, Transfers], None]], ...] = (
    (State.DISCOVERED, accept),
    (State.ACCEPTED, settle),
    (State.READY, carry),
    (State.CARRIED, verify),
    (State.VERIFIED, enrich),
    (State.ENRICHED, grant),
)
"""The way, in order: what is true of the file before the stage, and the stage."""
