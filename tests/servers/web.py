"""The product's own web server, on the database of the tests: for what only a real connection shows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.db import connection

from harvest.demo.local_server import LocalServer

ROOT = Path(__file__).resolve().parents[2]


class WebServer(LocalServer):
    """Gunicorn, as the product runs it. It sees only what tests commit."""

    label = "gunicorn"
    programs = ("gunicorn",)
    remedy = "It comes with requirements.txt."

    @property
    def netloc(self) -> str:
        return f"{self.host}:{self.port}"

    def _prepare(self) -> None:
        pass

    def _command(self) -> list[str]:
        options = ["--bind", self.netloc, "--threads", "4", "--no-control-socket", "--chdir", os.fspath(ROOT)]
        return [self._program("gunicorn"), "streamweave.wsgi", *options]

    def _environment(self) -> Mapping[str, str]:
        given: dict[str, Any] = connection.settings_dict
        return {"DATABASE_URL": "postgresql://{USER}@{HOST}:{PORT}/{NAME}".format(**given)}
