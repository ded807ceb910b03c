"""Gives the tests their own database, keys and data folder, before Django reads its settings.

A private PostgreSQL is started and stopped with the tests. TEST_DATABASE=sqlite runs them on SQLite instead; a
DATABASE_URL that is set already is used as it is.
"""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from harvest.demo.local_server import ServerError
from tests.servers.postgres import PostgresServer

# `.venv/bin/pytest` puts its own folder on the path, where impacket installs a script named like smbprotocol's package.
sys.path[:] = [entry for entry in sys.path if Path(entry) != Path(sys.executable).parent]


EVERY = 5
"""Which of a matrix of combinations are tried by default. It divides none of their dimensions, so that each kind of
each dimension has its turn."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole-matrix", action="store_true", help="every combination of the tests marked “matrix”")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--whole-matrix"):
        return
    matrix = [item for item in items if item.get_closest_marker("matrix")]
    left_out = {item for number, item in enumerate(matrix) if number % EVERY}
    config.hook.pytest_deselected(items=[item for item in items if item in left_out])
    items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(wrapper=True, tryfirst=True)  # a wrapper, so that it comes before pytest-django
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None]:
    folder = Path(tempfile.mkdtemp(prefix="streamweave-tests-"))
    early_config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    folder.chmod(0o755)  # the account that runs PostgreSQL must reach its folder in there
    (folder / "data").mkdir(mode=0o700)
    os.environ.setdefault("SECRET_KEY", secrets.token_urlsafe(50))
    os.environ.setdefault("STREAMWEAVE_ENCRYPTION_KEYS", base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
    os.environ.setdefault("STREAMWEAVE_DATA_DIR", str(folder / "data"))
    if "DATABASE_URL" not in os.environ:
        os.environ["DATABASE_URL"] = _database_url(early_config, folder)
    return (yield)


def _database_url(config: pytest.Config, folder: Path) -> str:
    kind = os.environ.get("TEST_DATABASE", "postgresql")
    if kind == "sqlite":
        return f"sqlite:///{folder / 'data' / 'db.sqlite3'}"
    if kind != "postgresql":
        raise pytest.UsageError(f"TEST_DATABASE is {kind!r}; it must be postgresql (the default) or sqlite.")
    server = PostgresServer(folder / "postgresql")
    config.add_cleanup(server.stop)
    try:
        server.start()
    except ServerError as error:
        raise pytest.UsageError(str(error)) from error
    return server.url
