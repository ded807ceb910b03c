from __future__ import annotations

import json
from typing import Any

import pytest

from hooks import exchange
from hooks.decisions import AfterTransfer, BeforeTransfer, GrantRequest, HookError, Verdict
from tests.hooks.files import a_file


def about(files: Any, answer: Any) -> bytes:
    return json.dumps({"files": {str(file.id): answer for file in files}}).encode()


def test_a_question_tells_all_facts_of_each_file() -> None:
    file = a_file("x/ü\udc80.raw", metadata={"compound": "glucose"})
    assert json.loads(exchange.question("pre_transfer", {"a": 1}, [file])) == {
        "trigger": "pre_transfer",
        "config": {"a": 1},
        "files": [
            {
                "id": str(file.id),
                "path": "x/ü\udc80.raw",
                "filename": "ü\udc80.raw",
                "size_bytes": 16384,
                "modified_at": "2026-01-15T09:30:00+00:00",
                "instrument_id": "1b1ef370-7eaa-416f-852e-7724248cce5b",
                "instrument_name": "Bruker AVANCE III 600 MHz NMR",
                "ark": "ark:/99999/fk43n3kd35",
                "owner_id": None,
                "metadata": {"compound": "glucose"},
            }
        ],
    }


def test_a_question_is_parted_so_that_each_part_stays_small() -> None:
    files = [a_file(f"{'x' * 50 * (number % 7)}/{number}") for number in range(100)]
    files[40] = a_file("big", metadata={"notes": "y" * 30_000})
    parts = list(exchange.questions("pre_transfer", None, files, 20_000))
    assert sum(count for _, count in parts) == 100
    asked = [file["id"] for part, _ in parts for file in json.loads(part)["files"]]
    assert asked == [str(file.id) for file in files]
    assert [count for part, count in parts if len(part) > 20_000] == [1]
    assert len(parts) < 10


def test_a_complete_answer_before_the_transfer_is_read() -> None:
    files = [a_file(), a_file(), a_file()]
    answer = {
        "files": {
            str(files[2].id): {"verdict": "hold", "reason": None},
            str(files[0].id): {"verdict": "skip", "reason": "blank"},
            str(files[1].id): {"verdict": "accept", "storage": "S3", "sub_path": "raw/2026"},
        }
    }
    assert exchange.answers_before(json.dumps(answer).encode(), files) == [
        BeforeTransfer(Verdict.SKIP, "blank"),
        BeforeTransfer(storage="S3", sub_path="raw/2026"),
        BeforeTransfer(Verdict.HOLD),
    ]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({}, "'verdict' is a required property"),
        ({"verdict": "accepted"}, "verdict: 'accepted' is not one of"),
        ({"verdict": "accept", "metadata": {}}, "'metadata' was unexpected"),
        ({"verdict": "accept", "sub_path": "../../etc"}, "sub_path: it must consist"),
        ({"verdict": "accept", "storage": "a\0"}, "NUL character"),
        ("accept", "'accept' is not of type 'object'"),
    ],
)
def test_an_invalid_answer_about_a_file_before_the_transfer_lets_nothing_through(answer: Any, message: str) -> None:
    wrong, right = a_file(), a_file()
    text = json.dumps({"files": {str(wrong.id): answer, str(right.id): {"verdict": "accept"}}}).encode()
    error, accepted = exchange.answers_before(text, [wrong, right])
    assert isinstance(error, HookError)
    assert message in str(error)
    assert accepted == BeforeTransfer()


def test_a_file_about_which_there_is_no_answer_is_not_let_through() -> None:
    for answer in (b'{"files": {}}', b"", b" \n"):
        (error,) = exchange.answers_before(answer, [a_file()])
        assert str(error) == exchange.NO_ANSWER


def test_a_complete_answer_after_the_transfer_is_read() -> None:
    files = [a_file(), a_file()]
    answer = {
        "metadata": {"peaks": [1.5, 2], "sample": {"name": "HeLa"}},
        "grants": [{"to": "owner"}, {"to": "project", "name": "Kinase"}],
    }
    first, second = exchange.answers_after(about(files[:1], answer), files)
    assert first == AfterTransfer(answer["metadata"], (GrantRequest("owner"), GrantRequest("project", "Kinase")))  # type: ignore[arg-type]
    assert second == AfterTransfer()
    assert exchange.answers_after(b"", files) == [AfterTransfer(), AfterTransfer()]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"metadata": []}, "metadata: [] is not of type 'object', 'null'"),
        ({"metadata": {"": 1}}, "metadata: '' should be non-empty"),
        ({"metadata": {"a": "\0"}}, "NUL character"),
        ({"metadata": {"a": "\ud800"}}, "not valid Unicode"),
        ({"metadata": {"a": "x" * 70_000}}, "more than 65536"),
        ({"metadata": {"a": float("inf")}}, "not JSON"),
        ({"grants": [{"to": "user", "name": "x"}]}, "grants[0]: the user cannot be named by name"),
        ({"grants": [{"to": "all"}]}, "grants[0].to: 'all' is not one of"),
        ({"verdict": "skip"}, "'verdict' was unexpected"),
        ({"problem": "the licence server is down", "metadata": {"a": 1}}, "the licence server is down"),
    ],
)
def test_an_invalid_answer_or_a_problem_after_the_transfer_concerns_that_file_only(answer: Any, message: str) -> None:
    wrong, right = a_file(), a_file()
    text = json.dumps({"files": {str(wrong.id): answer, str(right.id): {"metadata": {"a": 1}}}}).encode()
    error, good = exchange.answers_after(text, [wrong, right])
    assert isinstance(error, HookError)
    assert message in str(error)
    assert good == AfterTransfer({"a": 1})


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"ok", "the answer is not JSON"),
        (b"\xff\xfe\x00", "the answer is not JSON"),
        (b"[" * 100_000, "the answer is not JSON"),
        (b"[]", "not of the form"),
        (b'{"files": []}', "not of the form"),
        (b'{"files": {}, "more": 1}', "not of the form"),
        (b'{"files": {"4711": {"verdict": "accept"}}}', "a file that was not asked about: 4711"),
    ],
)
def test_what_is_no_answer_at_all_is_refused_as_a_whole(answer: bytes, message: str) -> None:
    for read in (exchange.answers_before, exchange.answers_after):
        with pytest.raises(HookError, match=message):
            read(answer, [a_file()])
