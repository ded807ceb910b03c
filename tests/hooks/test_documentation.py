"""The examples in docs/hooks.md are tried, so that whoever copies one has something that works."""

from __future__ import annotations

import base64
import json
import re
import secrets
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from hooks import exchange, scripts, webhooks
from hooks.builtins import BUILTINS
from hooks.decisions import AfterTransfer, BeforeTransfer, GrantRequest, HookError, Verdict
from hooks.validation import validate_config
from tests.hooks.files import a_file

PAGE = (Path(settings.BASE_DIR) / "docs" / "hooks.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    """What stands below a heading, up to the next one of the same or a higher level."""
    level, _, _ = heading.partition(" ")
    _, _, below = PAGE.partition(f"\n{heading}\n")
    assert below, f"docs/hooks.md has no section {heading!r}"
    found, *_ = re.split(rf"\n#{{1,{len(level)}}} ", below)
    return found


def blocks(heading: str, language: str) -> list[str]:
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", section(heading), re.DOTALL)
    assert found, f"docs/hooks.md has no {language} example below {heading!r}"
    return found


@pytest.mark.parametrize("name", BUILTINS)
def test_every_builtin_is_described_with_configs_that_can_be_entered(name: str) -> None:
    assert f"*{BUILTINS[name].trigger}.*" in section(f"### {name}")

    for example in blocks(f"### {name}", "json"):
        validate_config("builtin", name, json.loads(example))


def test_the_question_is_the_one_that_is_asked() -> None:
    (example,) = blocks("## The question", "json")
    described = json.loads(example)

    asked = json.loads(exchange.question("post_transfer", {}, [a_file()]))

    assert described.keys() == asked.keys()
    assert [file.keys() for file in described["files"]] == [file.keys() for file in asked["files"]]


def test_the_answers_are_understood() -> None:
    before, after = blocks("## The answer", "json")
    files = [a_file(id=uuid.UUID(key)) for key in json.loads(before)["files"]]

    assert exchange.answers_before(before.encode(), files) == [
        BeforeTransfer(sub_path="LAB/2026"),
        BeforeTransfer(Verdict.SKIP, "a blank"),
        BeforeTransfer(Verdict.HOLD, "not booked yet; ask again"),
    ]

    found, problem, nothing = exchange.answers_after(after.encode(), files)
    granted = (GrantRequest("project", "Kinase Inhibitor Fragment Screen"), GrantRequest("user", "chemist@example.com"))
    assert found == AfterTransfer({"sample": "LAB0042"}, granted)
    assert isinstance(problem, HookError)
    assert nothing == AfterTransfer()


def test_the_script_finds_what_it_says(script_dir: Path) -> None:
    (source,) = blocks("## Scripts", "python")
    (script_dir / "sample_numbers.py").write_text(source, encoding="utf-8")
    files = [a_file("20260115_LAB0042_1H/fid"), a_file("20260115_glucose_1H/fid")]

    answer = scripts.ask("sample_numbers.py", exchange.question("post_transfer", {"prefix": "LAB"}, files))

    assert exchange.answers_after(answer, files) == [AfterTransfer({"sample": "LAB0042"}), AfterTransfer()]


@pytest.fixture
def receiver() -> dict[str, Any]:
    """The names that the example of a receiver defines."""
    (source,) = blocks("## Webhooks", "python")
    names: dict[str, Any] = {"__name__": "receiver"}
    exec(compile(source, "docs/hooks.md", "exec"), names)
    return names


def test_the_receiver_believes_our_requests_and_no_others(receiver: dict[str, Any]) -> None:
    new, old = (f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}" for _ in range(2))
    question = exchange.question("pre_transfer", None, [a_file()])
    headers = webhooks.signed_headers(f"{old} {new}", "msg_1", question, time.time())
    late = webhooks.signed_headers(new, "msg_1", question, time.time() - 3600)

    assert receiver["is_signed"](headers, question, old)
    assert receiver["is_signed"](headers, question, new)
    assert not receiver["is_signed"](headers, question + b" ", new)
    assert not receiver["is_signed"]({**headers, "webhook-id": "msg_2"}, question, new)
    assert not receiver["is_signed"](headers, question, f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}")
    assert not receiver["is_signed"](late, question, new)
    assert not receiver["is_signed"]({}, question, new)


def test_the_receiver_answers_about_every_file(receiver: dict[str, Any]) -> None:
    files = [a_file("run/01.raw"), a_file("run/Blank_02.raw")]

    answer = receiver["answer"](json.loads(exchange.question("pre_transfer", None, files)))

    assert exchange.answers_before(json.dumps(answer).encode(), files) == [
        BeforeTransfer(),
        BeforeTransfer(Verdict.SKIP, "a blank"),
    ]
