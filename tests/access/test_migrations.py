"""People come before files, files before grants."""

from __future__ import annotations

from django.db.migrations.loader import MigrationLoader


def test_the_first_migration_of_access_does_not_need_harvest() -> None:
    graph = MigrationLoader(None).graph
    assert not [app for app, _ in graph.forwards_plan(("access", "0001_initial")) if app == "harvest"]
    assert ("harvest", "0001_initial") in graph.forwards_plan(("access", "0002_grants"))
