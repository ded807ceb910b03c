"""A private Redis for the tests."""

from __future__ import annotations

from pathlib import Path

import redis

from harvest.demo.local_server import LocalServer


class RedisServer(LocalServer):
    """Redis; with `appendonly` what it was told survives a restart."""

    label = "Redis"
    programs = ("redis-server",)
    remedy = "On Debian: apt-get install redis-server."

    def __init__(self, directory: Path, *, appendonly: bool = False, port: int | None = None) -> None:
        super().__init__(directory, port=port)
        self.appendonly = appendonly

    @property
    def url(self) -> str:
        """Its first database, as CELERY_BROKER_URL wants it."""
        return f"redis://{self.host}:{self.port}/0"

    def _prepare(self) -> None:
        settings = {
            "bind": self.host,
            "port": self.port,
            "save": '""',
            "appendonly": "yes" if self.appendonly else "no",
            "appendfsync": "always",
        }
        text = "".join(f"{name} {value}\n" for name, value in settings.items())
        (self.directory / "redis.conf").write_text(text)

    def _command(self) -> list[str]:
        return [self._program("redis-server"), "redis.conf"]

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except redis.exceptions.ConnectionError:  # also while it loads its file
            return False
