"""The states of a transfer, and the public words derived from them.

A state says what is already true of a file; a lease says who is working on it; an error says why it has not gone
further. No state means "busy" or "failed", so nothing can be stuck in one.
"""

from __future__ import annotations

from django.db import models


class State(models.TextChoices):
    DISCOVERED = "discovered", "seen on the instrument"
    ACCEPTED = "accepted", "taken by the filters"
    READY = "ready", "complete on the instrument"
    CARRIED = "carried", "copied, not yet verified"
    VERIFIED = "verified", "verified and published"
    ENRICHED = "enriched", "metadata found"
    AVAILABLE = "available", "granted and available"
    # the ends beside the way
    SKIPPED = "skipped", "refused by a filter"
    VANISHED = "vanished", "gone from the instrument before it was copied"
    SUPERSEDED = "superseded", "changed on the instrument before it was copied"
    CANCELLED = "cancelled", "cancelled by a person"


WAY = (
    State.DISCOVERED,
    State.ACCEPTED,
    State.READY,
    State.CARRIED,
    State.VERIFIED,
    State.ENRICHED,
    State.AVAILABLE,
)
"""The way of a file, in order."""

UNFINISHED = WAY[:-1]
BEFORE_A_COPY = WAY[:3]
"""Nothing of it is at the destination yet."""
STORED = (State.VERIFIED, State.ENRICHED, State.AVAILABLE)
"""A verified copy lies under its final name."""
ENDS = (State.SKIPPED, State.VANISHED, State.SUPERSEDED, State.CANCELLED)

TRANSITIONS: tuple[tuple[State, State, str], ...] = (
    (State.DISCOVERED, State.ACCEPTED, "filters take it"),
    (State.DISCOVERED, State.SKIPPED, "a filter refuses it"),
    (State.ACCEPTED, State.READY, "complete on the instrument"),
    (State.READY, State.CARRIED, "bytes at the destination, hidden"),
    (State.READY, State.ACCEPTED, "changed while it was read"),
    *((state, State.SUPERSEDED, "changed, and no copy of it exists") for state in (State.ACCEPTED, State.READY)),
    (State.CARRIED, State.VERIFIED, "read back, equal, published"),
    (State.CARRIED, State.READY, "hidden copy lost or unequal"),
    (State.VERIFIED, State.ENRICHED, "metadata found"),
    (State.ENRICHED, State.AVAILABLE, "access granted"),
    (State.ACCEPTED, State.VANISHED, "gone from the instrument"),
    (State.READY, State.VANISHED, "gone from the instrument"),
    *((state, State.CANCELLED, "cancelled") for state in WAY[:4]),
    *((state, State.DISCOVERED, "looked at again by a later run") for state in (State.SKIPPED, State.VANISHED)),
    (State.CANCELLED, State.DISCOVERED, "retried"),
    *((state, State.DISCOVERED, "changed on the instrument, no copy yet") for state in WAY[1:4]),
)
"""Every step that the code may take: (before, after, when). The diagram in docs/states.md is drawn from it."""


STEPS = frozenset((before, after) for before, after, _ in TRANSITIONS)


def check_step(before: str, after: str) -> None:
    """Raises ValueError unless TRANSITIONS has the step, or it is none."""
    if before != after and (before, after) not in STEPS:
        raise ValueError(f"no file goes from {before} to {after}; see TRANSITIONS")


class Status(models.TextChoices):
    """The public words of a transfer."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    SKIPPED = "skipped"
    FAILED = "failed"


def status(state: str, *, leased: bool, given_up: bool) -> Status:
    """The public word for a transfer in `state`; `leased`: somebody works on it now; `given_up`: it failed and is not
    tried again before a later run."""
    if state in STORED:
        return Status.COMPLETED
    if state in ENDS:
        return Status.SKIPPED
    if given_up:
        return Status.FAILED
    return Status.IN_PROGRESS if leased else Status.PENDING
