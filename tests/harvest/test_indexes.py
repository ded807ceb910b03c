"""The tables that get a row for each file have no index that does another's work."""

from __future__ import annotations

import pytest
from django.db import connection

from harvest.models import FileRecord, FileTransfer, FileVersion

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("model", [FileRecord, FileVersion, FileTransfer])
def test_no_index_is_just_the_beginning_of_another(model: type) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("it is PostgreSQL's catalogue that is asked")
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname, string_to_array(indkey::text, ' '), indisunique FROM pg_index"
            " JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam"
            " WHERE indrelid = %s::regclass AND indpred IS NULL AND indexprs IS NULL AND amname = 'btree'",
            [model._meta.db_table],
        )
        indexes = {name: (columns, unique) for name, columns, unique in cursor.fetchall()}
    assert len(indexes) > 1
    needless = {
        name: other
        for name, (columns, unique) in indexes.items()
        for other, (more, _) in indexes.items()
        if name != other and not unique and more[: len(columns)] == columns
    }
    assert needless == {}


def test_the_oldest_due_transfers_of_a_run_are_found_by_an_index_of_their_own() -> None:
    """Else each claim of a batch would look at all older transfers, finished ones of all runs among them."""
    (index,) = [index for index in FileTransfer._meta.indexes if index.name == "transfer_next"]
    assert index.fields == ["run", "created_at", "id"]
    if connection.vendor != "postgresql":
        return
    due = FileTransfer.objects.unfinished().filter(run="01a201a5-0000-7000-8000-000000000000")
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("SET LOCAL enable_sort = off")
        plan = due.order_by("created_at", "id")[:500].explain()
    assert "transfer_next" in plan
    assert "Sort" not in plan
