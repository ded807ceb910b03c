"""The way of a file, from seen to available. Read it from top to bottom.

Files walk in batches. Each stage takes the transfers of the batch that are in its state, does its one thing, and moves
those that succeeded; the others leave the batch with a reason. Every stage may run twice with the same result.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import timedelta

from django.utils import timezone

from harvest import completion
from harvest.batch import Batch
from harvest.carrying import carry
from harvest.connections import Connections, pause_if_refused
from harvest.enriching import enrich, grant
from harvest.facts import facts_of
from harvest.models import WAY, FileTransfer, LeaseLostError, State, StorageLocation
from harvest.storage.base import StorageError
from harvest.transfer import SourceError
from harvest.verifying import verify
from hooks import engine
from hooks.decisions import BeforeTransfer, Verdict
from hooks.models import HookConfig
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
            batch.fail_by(_not_past(state, transfers, batch), "source", error.error)
        except Exception as error:
            log.exception("stage %s of run %s", state, batch.run.pk)
            connections.forget_broken()
            message = f"{type(error).__name__}: {error}"
            batch.fail(_not_past(state, transfers, batch), state.value, "internal", message)
    batch.release()


def _not_past(state: State, transfers: Transfers, batch: Batch) -> list[FileTransfer]:
    """Those of a stage that its failure has left in the batch."""
    reached = WAY.index(state)
    return [transfer for transfer in transfers if transfer in batch and WAY.index(transfer.state) <= reached]


# ------------------------------------------------------------------------------------------------------------- accept


def accept(batch: Batch, connections: Connections, transfers: Transfers) -> None:
    """Discovered → accepted: the hooks before the transfer take it, skip it (and say why), or redirect it."""
    hooks = HookConfig.objects.active_for(batch.run.instrument_id, "pre_transfer")
    if not hooks:
        batch.step(transfers, State.ACCEPTED)
        return
    batch.hold_for(engine.longest_seconds(hooks))
    decisions = engine.before_transfer(hooks, [facts_of(transfer, batch.run.instrument) for transfer in transfers])
    skipped: list[FileTransfer] = []
    held: list[tuple[FileTransfer, str, str]] = []
    taken: list[Decided] = []
    redirected: list[Decided] = []
    for transfer, decision in zip(transfers, decisions, strict=True):
        if decision.verdict is Verdict.HOLD:
            held.append((transfer, "hook_failed", f"{decision.hook_name}: {decision.reason}"))
        elif decision.verdict is Verdict.SKIP:
            transfer.reason = f"{decision.hook_name}: {decision.reason}"
            skipped.append(transfer)
        else:
            transfer.sub_path = decision.sub_path
            (redirected if decision.storage else taken).append((transfer, decision))
    batch.fail_each(held, "hook")
    batch.end(skipped, State.SKIPPED)
    taken += _redirect(batch, redirected)
    batch.step([transfer for transfer, _ in taken], State.ACCEPTED, "storage_location", "sub_path")


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
    going, doubled, lost = [], [], []
    for transfer, decision in redirected:
        location = by_word.get(decision.storage or "")
        if location is None:
            message = f"{decision.hook_name}: there is no enabled storage location “{decision.storage}”."
            lost.append((transfer, "unknown_storage", message))
        elif any(v == transfer.version_id and s == location.pk and t != transfer.pk for v, s, t in there):
            transfer.reason = f"{decision.hook_name}: “{location}” has or gets this version already."
            doubled.append(transfer)
        else:
            transfer.storage_location = location
            going.append((transfer, decision))
    batch.fail_each(lost, "hook")
    batch.end(doubled, State.SKIPPED)
    return going


# ------------------------------------------------------------------------------------------------------------- settle


def settle(batch: Batch, connections: Connections, transfers: Transfers) -> None:
    """Accepted → ready: the instrument's completion policy says that the file is complete; or it waits and says why."""
    instrument = batch.run.instrument
    source = connections.source() if completion.asks_the_share(instrument) else None
    now = timezone.now() + timedelta(seconds=batch.run.clock_offset_seconds or 0)
    ours = timezone.now() - now
    complete, waits, gone, unseen = [], [], [], []
    for transfer, verdict in completion.judge(instrument, transfers, source, now):
        match verdict:
            case completion.Wait():
                waits.append((transfer, verdict.reason, verdict.until + ours))
            case completion.Changed(entry):
                batch.settle_anew(transfer, entry)
            case completion.Gone():
                gone.append(transfer)
            case StorageError():
                unseen.append((transfer, verdict))
            case None:
                complete.append(transfer)
        batch.keep()
    batch.wait(waits, "looks", "unchanged_since")
    batch.fail_by_each(unseen, "source")
    batch.vanish(gone)
    for transfer in complete:
        transfer.waiting_reason = None
    batch.step(complete, State.READY, "waiting_reason", "looks", "unchanged_since")


# ---------------------------------------------------------------------------------------------------- carry and verify

# Ready → carried → verified: the bytes. See harvest/carrying.py and harvest/verifying.py.


# ----------------------------------------------------------------------------------------------------- enrich and grant

# Verified → enriched → available: the hooks after the transfer. See harvest/enriching.py.


STAGES: tuple[tuple[State, Callable[[Batch, Connections, Transfers], None]], ...] = (
    (State.DISCOVERED, accept),
    (State.ACCEPTED, settle),
    (State.READY, carry),
    (State.CARRIED, verify),
    (State.VERIFIED, enrich),
    (State.ENRICHED, grant),
)
"""The way, in order: what is true of the file before the stage, and the stage."""
