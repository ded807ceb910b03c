"""A facility's files, people and grants in any size, written to PostgreSQL by the database itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import Permission
from django.db import connection
from django.db.models import Model
from django.test.utils import CaptureQueriesContext

from access.members import add_members
from access.models import FileGroupObjectPermission, FileUserObjectPermission, Group, Project, User
from harvest.models import FileRecord, FileTransfer, FileVersion, Instrument, StorageLocation

CIRCLES_OF_HEAVY = 4
INSTRUMENTS, COMPOUNDS = 11, 503
"""Prime numbers: whatever a user sees is spread over them evenly, however far apart his files are."""


@dataclass(frozen=True)
class Crowd:
    """`heavy` sees `visible` files: a fifth by grants of his own, the others by two groups and two projects. `light`
    sees 20 of them."""

    files: int
    visible: int
    heavy: User
    light: User
    admin: User
    instrument: Instrument


def build(*, files: int, visible: int, users: int, circles: int, grants: int) -> Crowd:
    """`users` users, `circles` groups and as many projects, `grants` grants in all, `files` files with a transfer each,
    spread so that what one user sees lies anywhere between the oldest and the newest."""
    people = User.objects.bulk_create(User(email=f"user{number}@example.org") for number in range(users))
    groups = [Group.objects.create(name=f"group {number}") for number in range(circles)]
    projects = [Project.objects.create(name=f"project {number}") for number in range(circles)]
    heavy, light = people[0], people[1]
    mine = [*groups[:2], *projects[:2]]
    for number, circle in enumerate([*groups, *projects]):
        add_members(to=circle, members=people[2 + number % 7 :: 7][: max(users // circles, 1)])
    for circle in mine:
        add_members(to=circle, members=[heavy])
    instruments = [
        Instrument.objects.create(name=f"instrument {number}", cifs_host="nowhere.invalid", cifs_share="data")
        for number in range(INSTRUMENTS)
    ]
    location = StorageLocation.objects.create(name="archive", type="posix", base_path="/nowhere")
    step = files // visible
    with without_indexes(FileRecord, FileVersion, FileTransfer):
        _write_files(files, instruments, location)
    _write_grants(files, step, grants - visible, people, [*mine, *groups[2:], *projects[2:]])
    analyze()
    admin = User.objects.create_superuser("admin@example.org")
    return Crowd(files, visible, heavy, light, admin, instruments[3])


def analyze() -> None:
    """Let the planner know what is there. VACUUM, which a benchmark does besides, is not for transactions."""
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def _write_files(files: int, instruments: list[Instrument], location: StorageLocation) -> None:
    ids = "ARRAY[" + ",".join(f"'{instrument.pk}'" for instrument in instruments) + "]::uuid[]"
    now = "'2026-03-01 12:00+00'::timestamptz"
    times = {"created_at": f"{now} + n / 200 * interval '1 minute'", "updated_at": now}
    sums = {"xxhash": "left(md5('x' || n), 16)", "sha256": "md5('a' || n) || md5('b' || n)"}
    content = {"size_bytes": "n % 100003", "source_mtime": f"{now} - n * interval '7 second'", **sums}
    _insert(
        FileRecord,
        files,
        {
            **times,
            **content,
            "id": "md5('file' || n)::uuid",
            "persistent_id": "'ark:/99999/fk4' || lpad(n::text, 16, '0')",
            "persistent_id_type": "'ark'",
            "instrument_id": f"({ids})[1 + n / 50 % {len(instruments)}]",
            "source_path": "'20260301_sample' || n / 50 || '/pdata/' || n % 50 || '/spectrum' || n || '.raw'",
            "source_path_key": "md5('path' || n)::uuid",
            "generation": "1",
            "is_current": "true",
            "filename": "'spectrum' || n || '.raw'",
            "origin": "'harvested'",
            "metadata": f"jsonb_build_object('compound', 'c' || n % {COMPOUNDS}, 'scans', n % 16)",
            "first_discovered_at": times["created_at"],
            "version_number": "1",
        },
    )
    _insert(
        FileVersion,
        files,
        {
            **times,
            **content,
            "id": "md5('version' || n)::uuid",
            "record_id": "md5('file' || n)::uuid",
            "number": "1",
            "xxhash_algorithm": "'xxh64'",
            "frozen_at": now,
            "proposed_grants": "'[]'::jsonb",
        },
    )
    numbers = ("attempts", "losses", "looks", "carry_attempts")
    _insert(
        FileTransfer,
        files,
        {
            **times,
            **dict.fromkeys(numbers, "0"),
            "id": "md5('transfer' || n)::uuid",
            "record_id": "md5('file' || n)::uuid",
            "version_id": "md5('version' || n)::uuid",
            "scheduled_storage_id": f"'{location.pk}'::uuid",
            "storage_location_id": f"'{location.pk}'::uuid",
            "state": "'available'",
            "given_up": "false",
            "staged_published": "false",
            "checksum_verified": "true",
            "source_checksum": sums["xxhash"],
            "dest_checksum": sums["xxhash"],
            "stored_path": "'files/' || n",
            "stored_path_key": "md5('stored' || n)::uuid",
            "completed_at": now,
        },
    )


def _write_grants(files: int, step: int, others: int, people: list[User], circles: list[Group | Project]) -> None:
    """The heavy user's on every `step`-th file, in turn his own and those of his circles; the light user's on twenty of
    them; those of others on the files between, or on the same where there are none between."""
    permission = Permission.objects.get(content_type__app_label="harvest", codename="view_filerecord").pk
    common = {
        "permission_id": str(permission),
        "content_object_id": "md5('file' || n)::uuid",
        "granted_at": "now()",
        "source": "'manual'",
    }
    turns = CIRCLES_OF_HEAVY + 1
    own = {**common, "id": "md5('heavy' || n)::uuid", "user_id": f"'{people[0].pk}'::uuid"}
    _insert(FileUserObjectPermission, files, own, where=f"n % {step} = 0 AND n / {step} % {turns} = 0")
    light = {**common, "id": "md5('light' || n)::uuid", "user_id": f"'{people[1].pk}'::uuid"}
    _insert(FileUserObjectPermission, files, light, where=f"n % {files // 20} = 0")
    for turn, circle in enumerate(circles[:CIRCLES_OF_HEAVY], start=1):
        shared = {**common, "id": f"md5('circle{turn}' || n)::uuid", "group_id": str(circle.auth_group_id)}
        _insert(FileGroupObjectPermission, files, shared, where=f"n % {step} = 0 AND n / {step} % {turns} = {turn}")
    if others <= 0:
        return
    every = max(files * 2 // others, 1)
    ids = "ARRAY[" + ",".join(f"'{user.pk}'" for user in people[2:]) + "]::uuid[]"
    to_user = {**common, "id": "md5('user' || n)::uuid", "user_id": f"({ids})[1 + n % {len(people) - 2}]"}
    _insert(FileUserObjectPermission, files, to_user, where=f"n % {every} = {every // 2}")
    keys = "ARRAY[" + ",".join(str(circle.auth_group_id) for circle in circles[CIRCLES_OF_HEAVY:]) + "]"
    among = len(circles) - CIRCLES_OF_HEAVY
    to_group = {**common, "id": "md5('group' || n)::uuid", "group_id": f"({keys})[1 + n % {among}]"}
    _insert(FileGroupObjectPermission, files, to_group, where=f"n % {every} = {every // 3}")


def _insert(model: type[Model], count: int, values: Mapping[str, str], *, where: str = "true") -> None:
    """Rows of `model` for each `n` from 1 to `count`; `values` are SQL expressions by column, null elsewhere."""
    required = {field.column for field in model._meta.concrete_fields if not field.null and not field.generated}
    assert not required - values.keys(), f"{model.__name__} needs {required - values.keys()}"
    columns, expressions = ", ".join(values), ", ".join(values.values())
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {model._meta.db_table} ({columns}) "
            f"SELECT {expressions} FROM generate_series(1, {count}) AS n WHERE {where}"
        )


@contextmanager
def without_indexes(*models: type[Model]) -> Iterator[None]:
    """Takes the indexes away that no constraint needs, and makes them again at the end: much faster than adding rows
    to them one by one."""
    tables = [model._meta.db_table for model in models]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = ANY(%s) AND NOT EXISTS "
            "(SELECT 1 FROM pg_constraint WHERE conname = indexname)",
            [tables],
        )
        found = cursor.fetchall()
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for name, _ in found:
            cursor.execute(f'DROP INDEX "{name}"')
        yield
        for _, definition in found:
            cursor.execute(definition)


# ----------------------------------------------------------------------------------------------------------- looking


def queries_of(ask: Callable[[], Any]) -> list[str]:
    """The queries that `ask` makes."""
    with CaptureQueriesContext(connection) as captured:
        ask()
    return [query["sql"] for query in captured]


def scanned_tables(queries: list[str]) -> set[str]:
    """The tables that the planner would read from end to end for these queries."""
    found: set[str] = set()
    for query in queries:
        if query.lstrip("(").startswith("SELECT"):
            with connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN (FORMAT JSON) {query.replace('%', '%%')}")
                (plan,) = cursor.fetchone()
            found |= _scanned(json.loads(plan) if isinstance(plan, str) else plan)
    return found


def _scanned(plan: Any) -> set[str]:
    if isinstance(plan, list):
        return {table for part in plan for table in _scanned(part)}
    if not isinstance(plan, dict):
        return set()
    here = {plan["Relation Name"]} if plan.get("Node Type") == "Seq Scan" else set()
    return here | {table for part in plan.values() for table in _scanned(part)}
