"""The embedded message broker: a folder on the local disk, so that nothing has to be installed beside StreamWeave.

It is kombu's filesystem transport with the parts replaced that fail when several processes use one folder: there, a
message is opened under its final name before it is written, a reader can see it empty, and the worker dies of it
(celery/kombu issue 1551). Here

- a message is written under a hidden name, flushed to the disk and renamed, so that whoever sees it sees all of it;
- names begin with the time of day, so that the order outlives a restart (the monotonic clock does not);
- a reader owns a message when it was the one to unlink it, so that nothing is left over when it dies;
- what cannot be read as a message is moved to `bad/`, logged, and the next one is taken;
- the tables of who listens to which exchange are replaced as a whole, under a lock.

The folder must lie on a local disk. It holds `queue/` (messages), `bad/` and `control/` (exchanges).
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, filesystem, virtual
from kombu.utils.json import dumps, loads

log = logging.getLogger(__name__)

SCHEME = "atomicfs"
Binding = tuple[str, str, str]  # routing key, pattern, queue


def register() -> None:
    """Teaches kombu the broker URL `atomicfs://`."""
    TRANSPORT_ALIASES[SCHEME] = f"{__name__}:Transport"


def transport_options(folder: Path) -> dict[str, Any]:
    """What Celery's `broker_transport_options` must be for the broker to live in `folder`."""
    queue = str(folder / "queue")
    return {
        "data_folder_in": queue,
        "data_folder_out": queue,
        "bad_folder": str(folder / "bad"),
        "control_folder": str(folder / "control"),
        "polling_interval": 0.2,  # seconds between looks while there is nothing to do
    }


def replace_file(path: Path, content: bytes) -> None:
    """Writes `content` so that `path` is seen with all of it or not at all, after a power cut as well."""
    hidden = path.with_name(f".{uuid.uuid4()}.tmp")
    try:
        with hidden.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        hidden.rename(path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise


class Channel(filesystem.Channel):
    """One client's view of the folder; several processes may have one each."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waiting: dict[str, deque[str]] = {}
        self._bad = Path(self.transport_options["bad_folder"])
        for folder in self.data_folder_in, self._bad, self.control_folder:
            Path(folder).mkdir(parents=True, exist_ok=True)

    def _put(self, queue: str, payload: Any, **kwargs: Any) -> None:  # type: ignore[override]  # the stubs name the parameters otherwise
        name = f"{time.time_ns():020d}_{uuid.uuid4()}.{queue}.msg"
        replace_file(Path(self.data_folder_out, name), dumps(payload).encode())

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        # One listing serves until all of it is taken: listing anew for each message makes a long queue quadratic.
        waiting = self._waiting.setdefault(queue, deque())
        if not waiting:
            waiting.extend(sorted(name for name in os.listdir(self.data_folder_in) if self._is_for(queue, name)))
        while waiting:
            path = Path(self.data_folder_in, waiting.popleft())
            with suppress(FileNotFoundError):  # another process was faster
                content = path.read_bytes()
                try:
                    payload = loads(content.decode())
                    self.Message(payload, channel=self)  # what kombu does next with it, where an error would be fatal
                except (
                    Exception
                ) as error:  # anything may be in the file, and kombu lets through what its decoders raise
                    path.rename(self._bad / path.name)
                    log.error("The broker moved a message that it cannot read to %s: %r", self._bad / path.name, error)
                else:
                    path.unlink()
                    return payload
        raise Empty

    @staticmethod
    def _is_for(queue: str, name: str) -> bool:
        return name.partition(".")[2] == f"{queue}.msg"

    def get_table(self, exchange: str) -> list[Binding]:  # type: ignore[override]  # the stubs know no result
        try:
            return [filesystem.exchange_queue_t(*row) for row in loads(self._table_file(exchange).read_text())]
        except FileNotFoundError:
            return []

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str | None, queue: str) -> None:
        binding = (routing_key or "", pattern or "", queue or "")
        self._change_table(exchange, lambda table: table if binding in table else [binding, *table])

    def _delete(self, queue: str, *args: Any, **kwargs: Any) -> None:
        exchange, routing_key, pattern = args[:3]
        binding = (routing_key or "", pattern or "", queue or "")
        self._purge(queue)
        self._change_table(exchange, lambda table: [row for row in table if row != binding])

    def _change_table(self, exchange: str, change: Callable[[list[Binding]], list[Binding]]) -> None:
        with self._control_locked():
            before = self.get_table(exchange)
            after = change(before)
            if after != before:
                replace_file(self._table_file(exchange), dumps(after).encode())

    def _table_file(self, exchange: str) -> Path:
        return Path(self._exchange_file(exchange))  # type: ignore[attr-defined]  # kombu's, which checks the name

    @contextmanager
    def _control_locked(self) -> Iterator[None]:
        with (Path(self.control_folder) / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # given back when the file is closed
            yield


class Transport(filesystem.Transport):
    Channel = Channel
    driver_type = SCHEME
    driver_name = SCHEME

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        # kombu's own shares one memory of bindings among all connections of the process, so that a second folder would
        # never be told who listens.
        self.state = virtual.BrokerState()
