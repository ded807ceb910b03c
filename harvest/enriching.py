"""Verified → enriched → available: the hooks after the transfer find metadata, and say who may see a file."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from access.grants import GrantRow, grant_many
from harvest.batch import Batch
from harvest.connections import Connections
from harvest.facts import facts_of
from harvest.models import FileTransfer, State
from hooks import engine
from hooks.models import HookConfig
from streamweave.lib import bulk

Transfers = Sequence[FileTransfer]
Hooks = Sequence[HookConfig]
Failures = list[tuple[FileTransfer, str, str]]


def enrich(batch: Batch, connections: Connections, transfers: Transfers) -> None:
    """Verified → enriched: the hooks after the transfer find metadata in path and content, once per version."""
    hooks = hooks_after(batch)
    batch.hold_for(engine.longest_seconds(hooks))
    fresh = [transfer for transfer in transfers if transfer.version.enriched_at is None]
    failures = find(batch, hooks, fresh, connections)
    batch.fail_each(failures, "hook")
    with transaction.atomic():
        write_found(fresh)
        batch.step([transfer for transfer in transfers if transfer.version.enriched_at], State.ENRICHED)
        batch.write()


def grant(batch: Batch, connections: Connections, transfers: Transfers) -> None:
    """Enriched → available: the hooks decide who may see it, access writes it down."""
    make_available(batch, hooks_after(batch), transfers)


def hooks_after(batch: Batch) -> Hooks:
    """The hooks that the batch's files meet after the transfer, in the order of asking."""
    return list(HookConfig.objects.active_for(batch.run.instrument_id, "post_transfer"))


def find(batch: Batch, hooks: Hooks, transfers: Transfers, connections: Connections | None) -> Failures:
    """Ask `hooks` about the versions of `transfers` and note what they find on the objects. Returns those of which a
    hook failed, to which nothing is noted. Without `connections`, no hook may ask for the content."""
    facts = [facts_of(transfer, batch.run.instrument, connections) for transfer in transfers]
    now = timezone.now()
    failures: Failures = []
    for transfer, found in zip(transfers, engine.enrich(hooks, facts), strict=True):
        if found.problems:
            failures.append((transfer, "hook_failed", "; ".join(found.problems)))
            continue
        transfer.record.metadata = {**transfer.record.metadata, **found.metadata}
        transfer.version.enriched_at = now
        transfer.version.proposed_grants = [[grant.grantee_type, grant.grantee] for grant in found.grants]
    return failures


def write_found(transfers: Transfers) -> None:
    """Write down what `find` has noted."""
    enriched = [transfer for transfer in transfers if transfer.version.enriched_at]
    bulk.write([transfer.record for transfer in enriched if transfer.record.metadata], ["metadata"])
    bulk.write([transfer.version for transfer in enriched], ["enriched_at", "proposed_grants"])


def make_available(batch: Batch, hooks: Hooks, transfers: Transfers) -> None:
    """Grant what `hooks` say, and what they have proposed before, and let the files go."""
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
    if rows:
        for row, reason in grant_many(rows, source="hook").refused:
            problems.setdefault(row.file_id, []).append(reason)
    troubled = [transfer for transfer in transfers if transfer.record_id in problems]
    batch.fail_each([(one, "hook_failed", "; ".join(problems[one.record_id])) for one in troubled], "hook")
    batch.finish([transfer for transfer in transfers if transfer.record_id not in problems])
