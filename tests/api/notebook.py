"""What the original's notebook does between its requests: a client with a base address, and waiting for a flow run."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import requests

Json = Any
TERMINAL_STATES = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")
UTC_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3,6})?Z")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Client:
    """`httpx.Client` as far as the notebook uses it: a base address, headers of its own, and those of a request."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._session = requests.Session()
        self._session.trust_env = False
        self.headers = self._session.headers

    def get(self, path: str, **kwargs: Any) -> requests.Response:
        return self._ask("GET", path, **kwargs)

    def post(self, path: str, **kwargs: Any) -> requests.Response:
        return self._ask("POST", path, **kwargs)

    def patch(self, path: str, **kwargs: Any) -> requests.Response:
        return self._ask("PATCH", path, **kwargs)

    def delete(self, path: str, **kwargs: Any) -> requests.Response:
        return self._ask("DELETE", path, **kwargs)

    def close(self) -> None:
        self._session.close()

    def _ask(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        return self._session.request(method, self._base_url + path, timeout=30, allow_redirects=False, **kwargs)


def wait_for_flow_run(prefect: Client, flow_run_id: str, *, seconds: float = 120) -> str:
    """The type of the state in which the flow run ends."""
    deadline = time.monotonic() + seconds
    while True:
        flow_run = prefect.get(f"/flow_runs/{flow_run_id}").json()
        assert list(flow_run)[:2] == ["id", "state"]
        assert flow_run["id"] == flow_run_id
        state: str = flow_run.get("state", {}).get("type", "UNKNOWN")
        if state in TERMINAL_STATES:
            return state
        assert state in ("SCHEDULED", "PENDING", "RUNNING")
        assert time.monotonic() < deadline, f"flow run {flow_run_id} is still {state} after {seconds} s"
        time.sleep(0.3)


def ok(answer: requests.Response, *statuses: int) -> Json:
    """The body of an answer with one of these statuses; None where it is empty."""
    assert answer.status_code in statuses, f"{answer.request.method} {answer.url}: {answer.status_code} {answer.text}"
    assert not answer.history
    if answer.status_code == 204:
        assert answer.content == b""
        return None
    assert answer.headers["Content-Type"].partition(";")[0] == "application/json"
    return answer.json()


def same_keys(row: Json, keys: Sequence[str], *, what: str) -> None:
    """The keys of the original, in its order; more may follow. Ids and times are written as it writes them."""
    assert list(row)[: len(keys)] == list(keys), f"{what}: {list(row)}"
    for name, value in row.items():
        if (name == "id" or name.endswith("_id")) and name != "persistent_id" and value is not None:
            assert UUID.fullmatch(value), f"{what}.{name}: {value}"
        if name.endswith(("_at", "_mtime")) and value is not None:
            assert UTC_TIME.fullmatch(value), f"{what}.{name}: {value}"


def all_same_keys(rows: Json, keys: Sequence[str], *, what: str) -> None:
    assert isinstance(rows, list)
    for row in rows:
        same_keys(row, keys, what=what)


def holds(row: Json, values: Mapping[str, Any]) -> None:
    assert {name: row[name] for name in values} == values
