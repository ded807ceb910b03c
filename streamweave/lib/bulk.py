"""Many rows inserted, or updated to different values, in one statement.

Django's bulk_create and bulk_update handle each value of each row by itself, several times, and the database parses
them one by one. On PostgreSQL each column goes there as one array instead, and what all rows share goes once. (COPY
was measured beside it: it is no faster into tables with indexes and foreign keys, and takes what is shared again for
each row.) On SQLite a prepared statement is run for each row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any

from django.db import connections, models, router, transaction
from django.db.models.expressions import BaseExpression
from django.utils import timezone

from streamweave.lib.arrays import Arrays, alike


def insert(
    model: type[models.Model], columns: Mapping[str, Sequence[Any]], *, ignore_conflicts: bool = False, **same: Any
) -> None:
    """Insert a row of `model` for each item of `columns`: sequences of one length, by attribute (`owner_id`).

    With `ignore_conflicts`, a row that a unique constraint refuses is passed over. `same` are the attributes that all
    rows share. What is in neither has the field's default, or is null. Raises
    ValueError where the sequences are not of one length.
    """
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1:
        raise ValueError(f"The columns of {model.__name__} are of different lengths, or there are none.")
    (count,) = lengths
    if count == 0:
        return
    connection = connections[router.db_for_write(model)]
    varying: dict[Any, Sequence[Any]] = {model._meta.get_field(name): values for name, values in columns.items()}
    shared: dict[Any, Any] = {model._meta.get_field(name): value for name, value in same.items()}
    _add_defaults(model, varying, shared, count)
    insert_ = _insert_arrays if connection.vendor == "postgresql" else _insert_each
    insert_(connection, model, varying, shared, " ON CONFLICT DO NOTHING" if ignore_conflicts else "")


def write(rows: Sequence[models.Model], fields: Sequence[str], *, where: Mapping[str, Any] | None = None) -> int:
    """Write `fields` of `rows`, all of one model, as they stand on the objects; `updated_at` moves as well.

    Only rows that still have the values of `where` (by field name, None for null) are written. Returns how many were.
    """
    if not rows or not fields:
        return 0
    model = type(rows[0])
    connection = connections[router.db_for_write(model)]
    columns: dict[Any, Sequence[Any]] = {}
    for name in fields:
        field: Any = model._meta.get_field(name)
        columns[field] = [getattr(row, field.attname) for row in rows]
    moved = [field for field in model._meta.concrete_fields if field.name == "updated_at"]
    shared: dict[Any, Any] = dict.fromkeys(moved, timezone.now())
    expected: dict[Any, Any] = {model._meta.get_field(name): value for name, value in (where or {}).items()}
    update = _update_from_arrays if connection.vendor == "postgresql" else _update_each
    return update(connection, model, [row.pk for row in rows], columns, shared, expected)


def _add_defaults(
    model: type[models.Model], varying: dict[Any, Sequence[Any]], shared: dict[Any, Any], count: int
) -> None:
    """Add what the fields that are in neither are on a new row: a callable default is asked for each."""
    blank = model()
    for field in model._meta.concrete_fields:
        if field in varying or field in shared:
            continue
        if field.has_default() and callable(field.default):
            made = [field.get_default() for _ in range(count)]
            if alike(made):
                shared[field] = made[0]
            else:
                varying[field] = made
            continue
        value = field.pre_save(blank, add=True)
        if value is not None and not isinstance(value, BaseExpression):  # nulls, and defaults of the database's own
            shared[field] = value


# --------------------------------------------------------------------------------------------------------- PostgreSQL


def _insert_arrays(
    connection: Any,
    model: type[models.Model],
    varying: Mapping[Any, Sequence[Any]],
    shared: Mapping[Any, Any],
    otherwise: str,
) -> None:
    quote = connection.ops.quote_name
    arrays = Arrays(connection)
    said: dict[Any, str] = {}
    for field, values in varying.items():
        # One array makes the rows, even where its values are alike.
        said[field] = arrays.column_or_value(field, values) if said else arrays.column(field, values)
    for field, value in shared.items():
        said[field] = arrays.value(field, value)
    names = ", ".join(quote(field.column) for field in said)
    table = quote(model._meta.db_table)
    arrays.execute(f"INSERT INTO {table} ({names}) SELECT {', '.join(said.values())} FROM {arrays.rows}{otherwise}")  # noqa: S608  (names of columns, quoted; values are parameters)


def _update_from_arrays(
    connection: Any,
    model: type[models.Model],
    keys: Sequence[Any],
    columns: Mapping[Any, Sequence[Any]],
    shared: Mapping[Any, Any],
    where: Mapping[Any, Any],
) -> int:
    quote = connection.ops.quote_name
    table = quote(model._meta.db_table)
    key: Any = model._meta.pk
    arrays = Arrays(connection)
    conditions = [f"{table}.{quote(key.column)} = {arrays.column(key, keys)}"]
    sets = [f"{quote(field.column)} = {arrays.column_or_value(field, values)}" for field, values in columns.items()]
    sets += [f"{quote(field.column)} = {arrays.value(field, value)}" for field, value in shared.items()]
    for field, value in where.items():
        is_value = "IS NULL" if value is None else f"= {arrays.value(field, value)}"
        conditions.append(f"{table}.{quote(field.column)} {is_value}")
    statement = f"UPDATE {table} SET {', '.join(sets)} FROM {arrays.rows} WHERE {' AND '.join(conditions)}"  # noqa: S608  (as above)
    return int(arrays.execute(statement).rowcount)


# ------------------------------------------------------------------------------------------------------------- SQLite


def _insert_each(
    connection: Any,
    model: type[models.Model],
    varying: Mapping[Any, Sequence[Any]],
    shared: Mapping[Any, Any],
    otherwise: str,
) -> None:
    quote = connection.ops.quote_name
    fields = [*varying, *shared]
    names, marks = ", ".join(quote(field.column) for field in fields), ", ".join(["%s"] * len(fields))
    statement = f"INSERT INTO {quote(model._meta.db_table)} ({names}) VALUES ({marks}){otherwise}"  # noqa: S608  (as above)
    _run_each(connection, statement, [*_columns(connection, varying), *_repeated(connection, shared)])


def _update_each(
    connection: Any,
    model: type[models.Model],
    keys: Sequence[Any],
    columns: Mapping[Any, Sequence[Any]],
    shared: Mapping[Any, Any],
    where: Mapping[Any, Any],
) -> int:
    quote = connection.ops.quote_name
    key: Any = model._meta.pk
    sets = ", ".join(f"{quote(field.column)} = %s" for field in (*columns, *shared))
    conditions = [f"{quote(key.column)} = %s", *(f"{quote(field.column)} IS %s" for field in where)]  # or IS NULL
    statement = f"UPDATE {quote(model._meta.db_table)} SET {sets} WHERE {' AND '.join(conditions)}"  # noqa: S608  (as above)
    written, there = _columns(connection, columns), _columns(connection, {key: keys})
    values = [*written, *_repeated(connection, shared), *there, *_repeated(connection, where)]
    return _run_each(connection, statement, values)


def _columns(connection: Any, columns: Mapping[Any, Sequence[Any]]) -> list[list[Any]]:
    return [[field.get_db_prep_save(value, connection) for value in values] for field, values in columns.items()]


def _repeated(connection: Any, shared: Mapping[Any, Any]) -> list[repeat[Any]]:
    return [repeat(field.get_db_prep_save(value, connection)) for field, value in shared.items()]


def _run_each(connection: Any, statement: str, columns: Sequence[Any]) -> int:
    with transaction.atomic(using=connection.alias, savepoint=False), connection.cursor() as cursor:
        cursor.executemany(statement, list(zip(*columns, strict=False)))
        return int(cursor.rowcount)
