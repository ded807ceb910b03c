"""Columns of values sent to PostgreSQL as arrays, in binary: a fraction of a microsecond per value.

Django writes each parameter into the text of the statement, which the database then parses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import models

_PLAIN: dict[type[models.Field[Any, Any]], type] = {
    models.BigIntegerField: int,
    models.BooleanField: bool,
    models.CharField: str,
    models.DateTimeField: datetime,
    models.FloatField: float,
    models.IntegerField: int,
    models.PositiveBigIntegerField: int,
    models.PositiveIntegerField: int,
    models.PositiveSmallIntegerField: int,
    models.SmallIntegerField: int,
    models.TextField: str,
    models.UUIDField: UUID,
}
"""The type of the values that such a field gives to the database as they are. Not of its subclasses, which may not."""


class Arrays:
    """Columns of values as parameters of one statement for PostgreSQL, which names their rows `given`."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.parameters: dict[str, Any] = {}
        self._columns: dict[str, str] = {}

    def column(self, field: Any, values: Sequence[Any]) -> str:
        """Take in a value of `field` for each row. Returns how the statement says the row's."""
        name = f"c{len(self.parameters)}"
        self.parameters[name] = _all_prepared(field, values, self.connection)
        self._columns[name] = _type(field, self.connection)
        return f"given.{name}"

    def value(self, field: Any, value: Any) -> str:
        """Take in one value of `field`. Returns how the statement says it."""
        name = f"c{len(self.parameters)}"
        (self.parameters[name],) = _all_prepared(field, [value], self.connection)
        return f"CAST(%({name})s AS {_type(field, self.connection)})"

    def column_or_value(self, field: Any, values: Sequence[Any]) -> str:
        """The same as `column`, which all the same goes as one value where all are alike."""
        if isinstance(field, models.JSONField) or not alike(values):  # in JSON, 1 and true are two things
            return self.column(field, values)
        return self.value(field, values[0])

    @property
    def rows(self) -> str:
        """What the statement selects `given` from; its column `row` counts them from 1."""
        arrays = ", ".join(f"%({name})b::{kind}[]" for name, kind in self._columns.items())
        return f"unnest({arrays}) WITH ORDINALITY AS given({', '.join(self._columns)}, row)"

    def execute(self, statement: str) -> Any:
        """The cursor that has executed `statement`.

        Django's own writes the parameters into the text of the statement; this one sends them beside it, in binary.
        """
        from psycopg import Cursor  # not there where SQLite is all there is

        self.connection.ensure_connection()
        cursor = Cursor(self.connection.connection)
        logged = self.connection.queries_logged
        wrapped = self.connection.make_debug_cursor(cursor) if logged else self.connection.make_cursor(cursor)
        wrapped.execute(statement, self.parameters)
        return wrapped


def alike(values: Sequence[Any]) -> bool:
    return all(value == values[0] for value in values)


def _type(field: Any, connection: Any) -> str:
    """Without its length, for a cast to varchar(n) cuts off in silence."""
    return re.sub(r"[(][0-9, ]+[)]", "", field.db_type(connection))


def _all_prepared(field: Any, values: Sequence[Any], connection: Any) -> list[Any]:
    """The values as the driver takes them, those of one array of one type."""
    while field.is_relation:
        field = field.target_field
    plain = _PLAIN.get(type(field))
    if plain is not None and set(map(type, values)) <= {plain, type(None)}:
        return list(values)
    prepared = [field.get_db_prep_save(value, connection) for value in values]
    if plain in (int, str):  # members of enumerations, Django's own subclasses of int
        return [None if value is None else plain(value) for value in prepared]
    return prepared
