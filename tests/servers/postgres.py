"""A private PostgreSQL for the tests: fast, since its data need not survive anything."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from pathlib import Path

import psycopg

from harvest.demo.local_server import LocalServer, ServerError, find_program

_ROLE = "streamweave"
# Durability is given up for speed, see "Non-Durable Settings" in PostgreSQL's documentation.
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "unix_socket_directories": "",
    "max_connections": "100",
    "timezone": "UTC",
}


class PostgresServer(LocalServer):
    """PostgreSQL with one superuser, streamweave, and an empty database of that name.

    PostgreSQL refuses to run as root; root starts it as the account `postgres`, which must be able to reach the folder.
    """

    label = "PostgreSQL"
    programs = ("postgres", "initdb")
    remedy = "On Debian: apt-get install postgresql. Or run the tests with TEST_DATABASE=sqlite."
    stop_signal = signal.SIGINT  # "fast shutdown": ends the sessions instead of waiting for them

    @classmethod
    def available(cls) -> bool:
        return _installed_in() is not None

    @property
    def url(self) -> str:
        """The database, as DATABASE_URL wants it."""
        return f"postgresql://{_ROLE}@{self.host}:{self.port}/{_ROLE}"

    def _account(self) -> str | None:
        return "postgres" if os.geteuid() == 0 else None

    def _data(self) -> Path:
        return self.directory / "data"

    def _command(self) -> list[str]:
        settings = {**_SETTINGS, "listen_addresses": self.host, "port": str(self.port)}
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [self._program("postgres"), "-D", str(self._data()), *options]

    @staticmethod
    def _program(name: str) -> str:
        return str((_installed_in() or Path()) / name)

    def _prepare(self) -> None:
        if (self._data() / "PG_VERSION").exists():
            return
        account = self._account()
        if account is not None:
            user = pwd.getpwnam(account)
            os.chown(self.directory, user.pw_uid, user.pw_gid)
        command = [self._program("initdb"), "-D", str(self._data()), "-U", _ROLE, "--auth=trust"]
        made = subprocess.run(
            [*command, "--encoding=UTF8", "--no-locale", "--no-sync"],
            cwd=self.directory,
            user=account,
            extra_groups=None if account is None else [],
            capture_output=True,
            text=True,
        )
        if made.returncode != 0:
            raise ServerError(f"initdb could not make a database in {self._data()}: {made.stderr.strip()}")

    def _answers(self) -> bool:
        try:
            # The session, not the port, says that it has finished starting up.
            with psycopg.connect(
                host=self.host, port=self.port, user=_ROLE, dbname="postgres", autocommit=True
            ) as session:
                if session.execute("SELECT 1 FROM pg_database WHERE datname = %s", [_ROLE]).fetchone() is None:
                    session.execute(f"CREATE DATABASE {_ROLE}")
        except psycopg.OperationalError:
            return False
        return True


def _installed_in() -> Path | None:
    """The folder of PostgreSQL's programs: Debian keeps them off the PATH, one folder for each version."""
    on_path = find_program("initdb")
    if on_path is not None:
        return Path(on_path).parent
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((path.parent for path in versions), key=lambda path: int(path.parent.name), default=None)
