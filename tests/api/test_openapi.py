"""The OpenAPI description: complete, the one in docs/, true, and shown by us without any other host."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.contrib.staticfiles import finders
from django.test import Client

from tests.api.routes import ID_IN_PATH, routes
from tests.journeys.processes import ROOT, environment, manage

OUTSIDE = re.compile(r"(?:https?:)?//[\w.-]+", re.ASCII)


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """As the server gives it."""
    answer = Client().get("/openapi.json")
    assert answer.status_code == 200
    told: dict[str, Any] = json.loads(answer.content)
    return told


def operations(schema: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method.upper(), path): operation
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
        if method != "parameters"
    }


def test_it_is_generated_without_a_warning_and_is_the_one_in_docs(tmp_path: Path) -> None:
    env = environment(DATABASE_URL=f"sqlite:///{tmp_path}/db.sqlite3")
    made = tmp_path / "openapi.yaml"
    done = manage("spectacular", "--fail-on-warn", "--validate", "--file", str(made), env=env)
    assert done.returncode == 0, done.stderr
    assert made.read_text() == (ROOT / "docs/openapi.yaml").read_text(), "make openapi writes it anew"


def test_it_is_the_same_whatever_the_database(schema: dict[str, Any]) -> None:
    here, there = (
        yaml.safe_dump(one).splitlines() for one in (schema, yaml.safe_load((ROOT / "docs/openapi.yaml").read_text()))
    )
    assert "\n".join(difflib.unified_diff(there, here, lineterm="", n=2)) == ""


def test_it_tells_of_every_route(schema: dict[str, Any]) -> None:
    pages = ("", "docs", "health", "openapi.json", "prefect/runs/")
    expected = {
        (route.method, "/" + ID_IN_PATH.sub(r"{\1}", route.path).replace("{pk}", "{id}"))
        for route in routes()
        if route.path and not route.path.startswith(pages[1:])
    }
    assert operations(schema).keys() == expected


def test_every_operation_has_a_name_of_its_own_and_says_what_may_go_wrong(schema: dict[str, Any]) -> None:
    found = operations(schema)
    names = [operation["operationId"] for operation in found.values()]
    assert len(set(names)) == len(names)
    assert [name for name in names if not re.fullmatch(r"[a-z]+(_[a-z]+)*", name)] == []
    for where, operation in found.items():
        answers = operation["responses"].keys()
        assert any(status.startswith("2") for status in answers), where
        if {} not in operation.get("security", [{}]):
            assert "401" in answers, where
        if "{" in where[1]:
            assert "404" in answers, where


def test_secrets_are_only_ever_sent_to_us(schema: dict[str, Any]) -> None:
    for name, component in schema["components"]["schemas"].items():
        if not name.endswith("Request"):
            assert component.get("properties", {}).keys().isdisjoint({"password", "webhook_secret", "secrets"}), name


@pytest.mark.django_db
@pytest.mark.parametrize("url", ["/docs", "/docs?script="])
def test_the_page_needs_nothing_from_elsewhere(client: Client, url: str) -> None:
    answer = client.get(url)
    assert answer.status_code == 200
    page = answer.content.decode()
    assert OUTSIDE.findall(page.replace("http://www.w3.org/2000/svg", "")) == []
    for asset in re.findall(r'(?:src|href)="/static/([^"]+)"', page):
        assert finders.find(asset), asset
    if url == "/docs":
        assert "swagger-ui-bundle" in page
    else:
        assert '"/openapi.json"' in page


@pytest.mark.django_db
def test_anybody_may_read_it_as_json(client: Client) -> None:
    answer = client.get("/openapi.json")
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("application/vnd.oai.openapi+json")


def test_whole_numbers_have_the_same_bounds_on_every_database(schema: dict[str, Any]) -> None:
    """Those of the columns of PostgreSQL; clients know from them which type suffices."""
    schemas = schema["components"]["schemas"]

    def of(one: str, name: str) -> tuple[Any, ...]:
        told = schemas[one]["properties"][name]
        return told.get("minimum"), told.get("maximum"), told.get("format")

    assert of("InstrumentRequest", "max_connections") == (1, 2**15 - 1, None)
    assert of("InstrumentRequest", "min_age_seconds") == (0, 2**31 - 1, None)
    assert of("InstrumentRequest", "max_bytes_per_second") == (1024, 2**63 - 1, "int64")
    assert of("HookRequest", "priority") == (-(2**31), 2**31 - 1, None)
    for one, name in (("File", "size_bytes"), ("FileVersion", "size_bytes"), ("Run", "files_completed")):
        assert of(one, name) == (0, 2**63 - 1, "int64")
    unbounded = [
        f"{one}.{name}"
        for one, told in schemas.items()
        for name, about in told.get("properties", {}).items()
        if about.get("type") == "integer" and not {"minimum", "maximum"} <= about.keys()
    ]
    assert unbounded == []
