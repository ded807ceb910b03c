"""Indexes for finding files: by time, size, name, checksum, beginning of the path, words in it, and metadata."""

from __future__ import annotations

import logging
from typing import Any

from django.conf import settings
from django.db import DatabaseError, migrations, models, transaction

log = logging.getLogger(__name__)

POSTGRESQL_INDEXES = (
    # of the beginning only: a whole path may be longer than what fits into an index
    "CREATE INDEX file_path_start ON harvest_filerecord (LEFT(source_path, 200) text_pattern_ops)",
    "CREATE INDEX file_metadata ON harvest_filerecord USING gin (metadata jsonb_path_ops)",
)
TRIGRAMS = "CREATE INDEX file_path_trigrams ON harvest_filerecord USING gin (UPPER(source_path) gin_trgm_ops)"


def add_postgresql_indexes(apps: Any, editor: Any) -> None:
    if editor.connection.vendor != "postgresql":
        return
    for statement in POSTGRESQL_INDEXES:
        editor.execute(statement)
    try:
        with transaction.atomic(using=editor.connection.alias):
            editor.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
            editor.execute(TRIGRAMS)
    except DatabaseError as error:  # not installed, or not ours to install: searching works, and looks at every path
        log.warning("Without PostgreSQL's extension pg_trgm, words in paths are searched slowly: %s", error)


def drop_postgresql_indexes(apps: Any, editor: Any) -> None:
    if editor.connection.vendor == "postgresql":
        editor.execute("DROP INDEX IF EXISTS file_path_start, file_metadata, file_path_trigrams")


class Migration(migrations.Migration):
    dependencies = [
        ("harvest", "0001_initial"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RemoveIndex(model_name="filerecord", name="file_instrument_newest"),
        migrations.AddIndex(
            model_name="filerecord",
            index=models.Index(fields=["instrument", "-first_discovered_at", "-id"], name="file_instrument_newest"),
        ),
        migrations.AddIndex(
            model_name="filerecord",
            index=models.Index(fields=["source_mtime", "id"], name="file_by_mtime"),
        ),
        migrations.AddIndex(
            model_name="filerecord",
            index=models.Index(fields=["size_bytes", "id"], name="file_by_size"),
        ),
        migrations.AddIndex(
            model_name="filerecord",
            index=models.Index(fields=["filename", "id"], name="file_by_name"),
        ),
        migrations.AddIndex(
            model_name="filerecord",
            index=models.Index(condition=models.Q(("xxhash__isnull", False)), fields=["xxhash"], name="file_by_xxhash"),
        ),
        migrations.AddIndex(
            model_name="filerecord",
            index=models.Index(condition=models.Q(("sha256__isnull", False)), fields=["sha256"], name="file_by_sha256"),
        ),
        migrations.RunPython(add_postgresql_indexes, drop_postgresql_indexes, elidable=False),
    ]
