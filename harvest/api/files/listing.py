"""The lists of files and of transfers for one user, asked for in the form that costs least.

Measured with `make bench-api`; the plans are PostgreSQL's. SQLite has one form for all of it.
"""

from __future__ import annotations

from typing import Any

from django.db import connection
from django.db.models import Q

from access.sight import MANY_FILES, SOME_FILES, Sight, sight_of
from harvest.api.files.filters import FileConditions, TransferConditions
from harvest.models import FileRecord, FileTransfer
from harvest.models.searching import RowByRow

SHORT = 101
"""So many rows at most are looked for among the newest files."""
LOOKED_AT = 150
"""Files for each of these rows; an index holds all that is needed of them."""


class FileListing:
    """The files that `user` may see and that meet `conditions`."""

    def __init__(self, user: Any, conditions: FileConditions) -> None:
        self._conditions, self._sight = conditions, sight_of(user, counted=True)
        if not (conditions.are_loose and can_be_gathered(self._sight)):
            self.files = conditions.narrow(FileRecord.objects.filter(self._sight.condition()), user)
        else:
            seen = FileRecord.objects.filter(self._sight.gathered())
            self.files = seen.filter(RowByRow(conditions.loose)) if conditions.are_any else seen

    def page(self, beyond: Q, ordering: tuple[str, ...], count: int) -> list[FileRecord]:
        """The first `count` of them in this order that are `beyond` a place in it."""
        return self._at_a_glance(beyond, ordering, count) or list(self.files.filter(beyond).order_by(*ordering)[:count])

    def _at_a_glance(self, beyond: Q, ordering: tuple[str, ...], count: int) -> list[FileRecord] | None:
        """The page, where a look at the first of all files finds so many; else None: only a longer look can tell."""
        if self._sight.size is None or self._sight.size < SOME_FILES:
            return None
        if count > SHORT or not self._conditions.are_common:
            return None
        if not connection.features.supports_slicing_ordering_in_compound:
            return None
        first = FileRecord.objects.filter(beyond).order_by(*ordering).values("pk")[: count * LOOKED_AT]
        seen = FileRecord.objects.filter(self._sight.gathered(among=first))
        if self._conditions.are_any:
            seen = seen.filter(RowByRow(self._conditions.loose))
        rows = list(seen.order_by(*ordering)[:count])
        return rows if len(rows) == count else None


def transfers_for(user: Any, conditions: TransferConditions) -> Any:
    """The transfers of the files that `user` may see and that meet `conditions`."""
    sight = sight_of(user, counted=not conditions.are_any)
    if can_be_gathered(sight):
        seen = sight.gathered(file="record")
    else:
        seen = sight.condition(file="record", instrument="record__instrument")
    return conditions.narrow(FileTransfer.objects.filter(seen))


def can_be_gathered(sight: Sight) -> bool:
    return sight.size is not None and sight.size < MANY_FILES
