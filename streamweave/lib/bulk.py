"""Many rows updated to different values in one statement.

Django's bulk_update writes a CASE with a branch for each row and field, which both Python and the database walk through
again for each row. Joining the table with a list of VALUES costs them one pass.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import connections, models, router
from django.utils import timezone

MAX_PARAMETERS = 30_000
"""Below what SQLite (32,766) and PostgreSQL (65,535) take in one statement."""


def write(rows: Sequence[models.Model], fields: Sequence[str], *, where: Mapping[str, Any] | None = None) -> int:
    """Write `fields` of `rows`, all of one model, as they stand on the objects; `updated_at` moves as well.

    Only rows that still have the values of `where` (by field name, None for null) are written. Returns how many were.
    Call it inside a transaction: many rows take several statements.
    """
    if not rows or not fields:
        return 0
    model = type(rows[0])
    alias = router.db_for_write(model)
    columns = [model._meta.get_field(name) for name in fields]
    per_statement = max(MAX_PARAMETERS // (len(columns) + 1), 1)
    parts = (rows[start : start + per_statement] for start in range(0, len(rows), per_statement))
    return sum(_write(model, alias, part, columns, dict(where or {})) for part in parts)


def _write(
    model: type[models.Model], alias: str, rows: Sequence[models.Model], columns: Sequence[Any], where: dict[str, Any]
) -> int:
    connection = connections[alias]
    quote = connection.ops.quote_name
    table = quote(model._meta.db_table)
    key: Any = model._meta.pk
    # Both databases name the columns of VALUES column1, column2, …
    sets = [
        f"{quote(field.column)} = {_typed(f'given.column{number}', field, connection)}"
        for number, field in enumerate(columns, start=2)
    ]
    parameters: list[Any] = []
    if any(field.name == "updated_at" for field in model._meta.concrete_fields):
        sets.append(f"{quote('updated_at')} = %s")
        parameters.append(_prepared(model._meta.get_field("updated_at"), timezone.now(), connection))
    values = ", ".join(["(" + ", ".join(["%s"] * (len(columns) + 1)) + ")"] * len(rows))
    for row in rows:
        parameters += [_prepared(field, getattr(row, field.attname), connection) for field in (key, *columns)]
    conditions = [f"{table}.{quote(key.column)} = {_typed('given.column1', key, connection)}"]
    for name, value in where.items():
        field: Any = model._meta.get_field(name)
        conditions.append(f"{table}.{quote(field.column)} " + ("IS NULL" if value is None else "= %s"))
        parameters += [] if value is None else [_prepared(field, value, connection)]
    statement = f"UPDATE {table} SET {', '.join(sets)} FROM (VALUES {values}) AS given WHERE {' AND '.join(conditions)}"  # noqa: S608  (names of columns, quoted; values are parameters)
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return int(cursor.rowcount)


def _typed(expression: str, field: Any, connection: Any) -> str:
    """PostgreSQL takes a column of nulls for text. Without its length, for a cast to varchar(n) cuts off in silence."""
    if connection.vendor != "postgresql":
        return expression
    return f"CAST({expression} AS {re.sub(r'[(][0-9, ]+[)]', '', field.db_type(connection))})"


def _prepared(field: Any, value: Any, connection: Any) -> Any:
    return field.get_db_prep_save(value, connection)
