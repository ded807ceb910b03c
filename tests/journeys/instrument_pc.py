"""The computer of an instrument: writes to the share by SMB, as its programs do, with their locks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import smbclient

from harvest.demo.servers import SambaServer
from tests.conftest import SMB_PASSWORD, SMB_USER, ShareFolder


class InstrumentPC:
    """Paths are those of the harvested folder, with "/"."""

    def __init__(self, server: SambaServer, folder: ShareFolder) -> None:
        self._root = f"\\\\{server.host}\\{folder.share}{folder.base_path}".replace("/", "\\")
        self._cache: dict[str, Any] = {}
        login = {"username": SMB_USER, "password": SMB_PASSWORD, "port": server.port}
        self._session = {**login, "connection_cache": self._cache}

    def close(self) -> None:
        smbclient.reset_connection_cache(connection_cache=self._cache, fail_on_error=False)

    def write(self, path: str, content: bytes) -> None:
        with self._open(path, "wb", share_access="r") as file:
            file.write(content)

    def append(self, path: str, content: bytes) -> None:
        with self._open(path, "ab", share_access="r") as file:
            file.write(content)

    def rename(self, old: str, new: str) -> None:
        smbclient.rename(self._name(old), self._name(new), **self._session)

    def remove(self, path: str) -> None:
        smbclient.remove(self._name(path), **self._session)

    @contextmanager
    def holding(self, path: str) -> Iterator[None]:
        """Keeps the file open and lets nobody else in, as some acquisition software does."""
        with self._open(path, "r+b", share_access=None):
            yield

    def _open(self, path: str, mode: str, *, share_access: str | None) -> Any:
        return smbclient.open_file(self._name(path), mode, share_access=share_access, **self._session)

    def _name(self, path: str) -> str:
        return "\\".join((self._root, *path.split("/")))
