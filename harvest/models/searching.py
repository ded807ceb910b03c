"""Conditions on files that Django has no lookup for, said so that PostgreSQL can answer them from an index.

The indexes are in the migration `0002_file_searching`. SQLite gives the same answers by looking at each row.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models import Lookup, Q, Value
from django.db.models.functions import Upper

if TYPE_CHECKING:
    Condition = Lookup[Any]
else:  # Django's classes take type parameters in its stubs only
    Condition = Lookup

Sql = tuple[str, Any]
"""A condition and its parameters."""

INDEXED_START = 200
"""So many characters of a path are in the index of beginnings; a whole path may be too long for any index."""
MAX_VALUE_LENGTH = 1000
"""No number that somebody means is longer; Python refuses to read one of more than 4300 digits."""


def escaped(text: str) -> str:
    """`text` in a LIKE pattern, standing for itself."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def as_like(glob: str) -> str:
    """The LIKE pattern of a glob, in which `*` is any run of characters and `?` one; all others are themselves."""
    return "".join({"*": "%", "?": "_"}.get(character, escaped(character)) for character in glob)


class Like(Condition):
    """`lhs LIKE rhs`, with the backslash as its escape."""

    lookup_name = "like"
    output_field = models.BooleanField()

    def as_sql(self, compiler: Any, connection: Any) -> Sql:
        left, left_params = self.process_lhs(compiler, connection)
        right, right_params = self.process_rhs(compiler, connection)
        return f"{left} LIKE {right}", [*left_params, *right_params]

    def as_sqlite(self, compiler: Any, connection: Any) -> Sql:
        sql, params = self.as_sql(compiler, connection)
        return rf"{sql} ESCAPE '\'", params


def named(glob: str) -> Q:
    """Files whose name matches `glob`: `*` any run of characters, `?` one, letter case aside."""
    like = Upper(Value(as_like(glob)))
    # the name is the end of the path, whose index of trigrams serves both
    tail = Upper(Value(f"%{as_like(glob)}"))
    return Q(Like(Upper("filename"), like), Like(Upper("source_path"), tail))


def mentioning(words: Iterable[str]) -> Q:
    """Files whose source path holds each of `words` somewhere, letter case aside."""
    return Q(*(Like(Upper("source_path"), Upper(Value(f"%{escaped(word)}%"))) for word in words))


class RowByRow(models.Func):
    """A condition, a `Q`, in a form in which the database looks for no index to meet it, but at each row that the other
    conditions leave."""

    template = "(%(expressions)s) IS TRUE"
    arity = 1
    output_field = models.BooleanField()


class BeginsWith(Condition):
    """The text column `lhs` begins with the string `rhs`, in exactly these letters."""

    lookup_name = "begins_with"
    prepare_rhs = False
    output_field = models.BooleanField()

    def as_sql(self, compiler: Any, connection: Any) -> Sql:
        column, params = self.process_lhs(compiler, connection)
        return f"SUBSTR({column}, 1, %s) = %s", [*params, len(self.rhs), self.rhs]

    def as_postgresql(self, compiler: Any, connection: Any) -> Sql:
        column, params = self.process_lhs(compiler, connection)
        sql = f"LEFT({column}, {INDEXED_START}) LIKE %s"
        found = [*params, f"{escaped(self.rhs[:INDEXED_START])}%"]
        if len(self.rhs) > INDEXED_START:
            sql, found = f"{sql} AND {column} LIKE %s", [*found, *params, f"{escaped(self.rhs)}%"]
        return sql, found


class HasFact(Condition):
    """The JSON object in the column `lhs` has the key and value of `rhs`, a pair of texts.

    The value is meant as a text, or as the number, `true`, `false` or `null` that it spells.
    """

    lookup_name = "has_fact"
    prepare_rhs = False
    output_field = models.BooleanField()

    def as_sql(self, compiler: Any, connection: Any) -> Sql:
        column, params = self.process_lhs(compiler, connection)
        key, text = self.rhs
        meant = [_json_types(value) for value in meanings(text)]
        values = " OR ".join(
            f"fact.type IN ({', '.join(['%s'] * len(types))})" + (" AND fact.atom = %s" if atom is not None else "")
            for types, atom in meant
        )
        sql = f"EXISTS (SELECT 1 FROM json_each({column}) AS fact WHERE fact.key = %s AND ({values}))"  # noqa: S608  (a column compiled by Django; values are parameters)
        return sql, [*params, key, *(part for types, atom in meant for part in (*types, *_given(atom)))]

    def as_postgresql(self, compiler: Any, connection: Any) -> Sql:
        column, params = self.process_lhs(compiler, connection)
        key, text = self.rhs
        facts = [json.dumps({key: value}, ensure_ascii=False) for value in meanings(text)]
        sql = " OR ".join([f"{column} @> %s::jsonb"] * len(facts))
        return f"({sql})", [part for fact in facts for part in (*params, fact)]


def meanings(text: str) -> list[str | int | float | bool | None]:
    """What `text` may stand for in JSON: always itself, and a number or constant where it spells one."""
    try:
        value = json.loads(text) if len(text) <= MAX_VALUE_LENGTH else text
    except ValueError:
        return [text]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63:
        value = float(value) if len(text) <= 300 else text  # no database takes the whole number
    if isinstance(value, (str, list, dict)) or (isinstance(value, float) and not math.isfinite(value)):
        return [text]
    return [text, value]


def _json_types(value: str | int | float | bool | None) -> tuple[tuple[str, ...], str | int | float | None]:
    """What SQLite calls the type of `value`, and the value to compare where the type does not say all."""
    if value is None or isinstance(value, bool):
        return (json.dumps(value),), None
    return (("text",) if isinstance(value, str) else ("integer", "real")), value


def _given(atom: str | int | float | None) -> tuple[str | int | float, ...]:
    return () if atom is None else (atom,)
