from __future__ import annotations

import ipaddress
import json
import logging
import uuid
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from harvest.models import Instrument
from hooks import engine, scripts, webhooks
from hooks.builtins.file_filter import FileFilter
from hooks.decisions import AfterTransfer, BeforeTransfer, GrantRequest, Verdict
from hooks.models import HookConfig
from tests.hooks.conftest import Script
from tests.hooks.files import a_file, with_content
from tests.hooks.receiver import answering, receiving
from tests.hooks.test_builtins import SEED_FILTER, SEED_RULE
from tests.hooks.test_webhooks import SECRET


def builtin(which: str, config: Any, trigger: str = "pre_transfer", **fields: Any) -> HookConfig:
    return HookConfig(
        **{
            "name": which,
            "trigger": trigger,
            "implementation": "builtin",
            "builtin_name": which,
            "config": config,
            **fields,
        }
    )


def script_hook(path: str, trigger: str = "pre_transfer", **fields: Any) -> HookConfig:
    return HookConfig(name="script", trigger=trigger, implementation="python_script", script_path=path, **fields)


def webhook(url: str, trigger: str = "pre_transfer", **fields: Any) -> HookConfig:
    return HookConfig(
        name="webhook",
        trigger=trigger,
        implementation="http_webhook",
        webhook_url=url,
        webhook_secret=SECRET,
        **fields,
    )


def before(hooks: list[HookConfig], *files: Any) -> list[BeforeTransfer]:
    return engine.before_transfer(hooks, files, record=False)


ACCEPT_ALL = """
    import json, sys
    question = json.load(sys.stdin)
    print(json.dumps({"files": {file["id"]: {"verdict": "accept"} for file in question["files"]}}))
"""

# ---------------------------------------------------------------------------------------------- before the transfer


def test_without_hooks_every_file_is_taken() -> None:
    assert before([], a_file(), a_file()) == [BeforeTransfer(), BeforeTransfer()]


def test_a_skip_carries_its_reason_and_the_name_of_the_hook() -> None:
    decisions = before([builtin("file_filter", SEED_FILTER)], a_file("scratch.tmp"), a_file(), a_file(size_bytes=0))
    assert decisions == [
        BeforeTransfer(Verdict.SKIP, "matches the exclude pattern “*.tmp”", "file_filter"),
        BeforeTransfer(),
        BeforeTransfer(Verdict.SKIP, "0 bytes are less than min_size_bytes, 1", "file_filter"),
    ]


def test_a_hook_without_a_config_does_nothing() -> None:
    assert before([builtin("file_filter", None), builtin("redirect", None)], a_file("x.tmp")) == [BeforeTransfer()]
    after = engine.enrich([builtin("metadata_enrichment", None, "post_transfer")], [a_file()], record=False)
    granted = engine.assign_access([builtin("access_assignment", None, "post_transfer")], [a_file()], record=False)
    assert after == granted == [AfterTransfer()]


def test_the_first_hook_that_refuses_a_file_decides() -> None:
    hooks = [
        builtin("file_filter", {"exclude_patterns": ["*.tmp"]}, name="first"),
        builtin("file_filter", {"max_size_bytes": 1}, name="second"),
    ]
    decisions = before(hooks, a_file("x.tmp"), a_file("x.raw"))
    assert [decision.hook_name for decision in decisions] == ["first", "second"]


def test_later_redirects_replace_what_they_name_and_keep_the_rest() -> None:
    hooks = [
        builtin("redirect", {"rules": [{"storage": "A", "sub_path": "a"}]}, name="one"),
        builtin("redirect", {"rules": [{"patterns": ["*.raw"], "sub_path": "b"}]}, name="two"),
    ]
    assert before(hooks, a_file("x.raw"), a_file("x.txt")) == [
        BeforeTransfer(hook_name="two", storage="A", sub_path="b"),
        BeforeTransfer(hook_name="one", storage="A", sub_path="a"),
    ]


def test_what_is_skipped_is_not_redirected() -> None:
    hooks = [
        builtin("redirect", {"rules": [{"storage": "A"}]}),
        builtin("file_filter", SEED_FILTER),
    ]
    (decision,) = before(hooks, a_file("x.tmp"))
    assert (decision.verdict, decision.storage) == (Verdict.SKIP, None)


def test_hooks_of_the_other_trigger_are_not_asked() -> None:
    enrichment = builtin("metadata_enrichment", {"rules": [SEED_RULE]}, "post_transfer")
    assert before([enrichment], a_file()) == [BeforeTransfer()]
    assert engine.enrich([builtin("file_filter", SEED_FILTER)], [a_file("x.tmp")], record=False) == [AfterTransfer()]


@pytest.mark.parametrize(
    ("hook", "why"),
    [
        (builtin("file_filter", {"min_size_bytes": "1"}), "the config is invalid: min_size_bytes: '1'"),
        (builtin("file_filter", ["*"]), "the config is invalid"),
        (builtin("gone", {}), "“gone” is no builtin"),
        (builtin("metadata_enrichment", {"rules": [SEED_RULE]}), "metadata_enrichment is no hook for pre_transfer"),
        (script_hook("missing.py"), "“missing.py” is not in the folder"),
        (webhook("https://127.0.0.1/"), "WEBHOOK_ALLOW_PRIVATE"),
        (webhook("no url"), "a character"),
    ],
)
@pytest.mark.usefixtures("script_dir")
def test_a_failing_hook_holds_its_files(hook: HookConfig, why: str) -> None:
    decisions = before([hook], a_file(), a_file())
    assert [decision.verdict for decision in decisions] == [Verdict.HOLD] * 2
    assert all(why in decision.reason and decision.hook_name == hook.name for decision in decisions)


def test_a_failing_hook_holds_only_those_it_was_asked_about(script: Script) -> None:
    hooks = [
        builtin("file_filter", SEED_FILTER),
        script_hook(script("raise SystemExit('no')")),
        script_hook("other.py"),
    ]
    skipped, held = before(hooks, a_file("x.tmp"), a_file())
    assert skipped.verdict is Verdict.SKIP
    assert held == BeforeTransfer(Verdict.HOLD, "the script ended with status 1: no", "script")


def test_a_builtin_that_breaks_on_one_file_decides_about_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(self: Any, file: Any) -> BeforeTransfer:
        return BeforeTransfer() if file.path == "good" else BeforeTransfer(1 / 0)  # type: ignore[arg-type]

    monkeypatch.setattr(FileFilter, "before_transfer", breaks)
    held, taken = before([builtin("file_filter", {})], a_file("bad"), a_file("good"))
    assert held == BeforeTransfer(Verdict.HOLD, "ZeroDivisionError: division by zero", "file_filter")
    assert taken == BeforeTransfer()
    assert "The hook “file_filter” failed for some or all of 2 files" in caplog.text


def test_what_nobody_foresaw_is_held_and_logged_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(*args: Any) -> bytes:
        raise RuntimeError("out of \ud800 luck\0")

    monkeypatch.setattr(scripts, "ask", breaks)
    (held,) = before([script_hook("hook.py")], a_file())
    assert held == BeforeTransfer(Verdict.HOLD, "RuntimeError: out of � luck", "script")
    assert "Traceback" in caplog.text


def test_a_script_is_asked_once_for_the_whole_batch(script: Script) -> None:
    path = script(
        """
        import json, sys
        question = json.load(sys.stdin)
        assert question["trigger"] == "pre_transfer"
        least = question["config"]["least"]
        answers = {
            file["id"]: {"verdict": "accept", "sub_path": f"of-{len(question['files'])}"}
            if file["size_bytes"] >= least
            else {"verdict": "skip", "reason": "small"}
            for file in question["files"]
        }
        print(json.dumps({"files": answers}))
        """
    )
    files = [a_file(size_bytes=number) for number in range(300)]
    decisions = before([script_hook(path, config={"least": 100})], *files)
    assert decisions[99] == BeforeTransfer(Verdict.SKIP, "small", "script")
    assert decisions[100] == BeforeTransfer(hook_name="script", sub_path="of-300")


def test_nothing_is_asked_about_no_files(script: Script) -> None:
    hook = script_hook(script("raise SystemExit('asked')"))
    assert before([hook]) == []
    assert before([builtin("file_filter", SEED_FILTER), hook], a_file("x.tmp"))[0].verdict is Verdict.SKIP
    assert engine.enrich([script_hook("hook.py", "post_transfer")], [], record=False) == []


# ------------------------------------------------------------------------------------------------------- webhooks


def accepting(handler: BaseHTTPRequestHandler, question: bytes) -> None:
    files = json.loads(question)["files"]
    answering(json.dumps({"files": {file["id"]: {"verdict": "accept"} for file in files}}).encode())(handler, question)


@pytest.fixture
def _loopback_allowed(settings: Any) -> None:
    settings.WEBHOOK_ALLOW_PRIVATE = [ipaddress.ip_network("127.0.0.0/8")]


@pytest.mark.usefixtures("_loopback_allowed")
def test_a_large_batch_is_posted_in_small_parts_whose_ids_stay_the_same_over_retries() -> None:
    files = [a_file() for _ in range(200)]
    with receiving(accepting) as receiver:
        hook = webhook(receiver.url())
        assert before([hook], *files) == [BeforeTransfer()] * 200
        first = [headers["webhook-id"] for _, headers, _ in receiver.requests]
        before([hook], *files)
    both = [headers["webhook-id"] for _, headers, _ in receiver.requests]
    assert len(set(first)) == len(first) > 1
    assert both == first * 2
    assert all(len(body) <= webhooks.MAX_BODY_BYTES for _, _, body in receiver.requests)


@pytest.mark.usefixtures("_loopback_allowed")
def test_a_receiver_that_fails_is_not_asked_about_the_rest_of_the_batch() -> None:
    files = [a_file() for _ in range(200)]

    def failing_later(handler: BaseHTTPRequestHandler, question: bytes) -> None:
        (accepting if len(receiver.requests) == 1 else answering(b"", 503))(handler, question)

    with receiving(failing_later) as receiver:
        decisions = before([webhook(receiver.url())], *files)
    assert len(receiver.requests) == 2
    asked = len(json.loads(receiver.requests[0][2])["files"])
    assert decisions[:asked] == [BeforeTransfer()] * asked
    assert {decision.reason for decision in decisions[asked:]} == {"127.0.0.1 answered 503 Service Unavailable"}
    assert {decision.verdict for decision in decisions[asked:]} == {Verdict.HOLD}


@pytest.mark.usefixtures("_loopback_allowed")
def test_all_requests_of_a_batch_together_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "BATCH_SECONDS", 0)
    with receiving(accepting) as receiver:
        (held,) = before([webhook(receiver.url())], a_file())
        assert not receiver.requests
    assert held.reason == "the receiver took more than 0 s for the whole batch"


# ------------------------------------------------------------------------------------------------ after the transfer


def test_metadata_adds_up_in_order_and_later_hooks_see_it(script: Script) -> None:
    path = script(
        """
        import json, sys
        files = json.load(sys.stdin)["files"]
        print(json.dumps({"files": {file["id"]: {
            "metadata": {"seen": sorted(file["metadata"]), "compound": file["metadata"]["compound"].upper()},
            "grants": [{"to": "project", "name": "Kinase"}, {"to": "project", "name": "Kinase"}],
        } for file in files}}))
        """
    )
    hooks = [
        builtin("metadata_enrichment", {"rules": [SEED_RULE]}, "post_transfer"),
        script_hook(path, "post_transfer"),
        builtin("access_assignment", {"grants": [{"to": "owner"}]}, "post_transfer"),
    ]
    (found,) = engine.enrich(hooks, [a_file(metadata={"by_hand": 1}, owner_id=uuid.uuid4())], record=False)
    assert found == AfterTransfer(
        {
            "date": "20260115",
            "compound": "GLUCOSE",
            "nucleus": "1H",
            "seen": ["by_hand", "compound", "date", "nucleus"],
        },
        (GrantRequest("project", "Kinase"),),
    )


def test_only_access_assignment_is_asked_whom_to_let_see() -> None:
    hooks = [
        builtin("metadata_enrichment", {"rules": [SEED_RULE]}, "post_transfer"),
        builtin("access_assignment", {"grants": [{"to": "project", "metadata_key": "project"}]}, "post_transfer"),
        builtin("access_assignment", {"grants": [{"to": "group", "name": "Chemistry"}]}, "post_transfer"),
    ]
    assert engine.assign_access(hooks, [a_file(metadata={"project": "Gold"})], record=False) == [
        AfterTransfer(grants=(GrantRequest("project", "Gold"), GrantRequest("group", "Chemistry")))
    ]


def test_a_hook_that_fails_after_the_transfer_leaves_a_problem_and_the_others_go_on(script: Script) -> None:
    def broken(size_bytes: int) -> bytes:
        raise OSError("the copy cannot be read")

    content = {"rules": [{"source": "content", "pattern": "(?P<first>.)"}]}
    hooks = [
        builtin("metadata_enrichment", content, "post_transfer", name="content"),
        script_hook(script("print('no answer')"), "post_transfer"),
        builtin("metadata_enrichment", {"rules": [SEED_RULE]}, "post_transfer"),
    ]
    files = [a_file(read_head=broken), with_content("20260115_glucose_1H/fid", b"x")]
    first, second = engine.enrich(hooks, files, record=False)
    answer = "script: the answer is not JSON (Expecting value: line 1 column 1 (char 0)): no answer\n"
    assert first.problems == ("content: OSError: the copy cannot be read", answer)
    assert second.problems == (answer,)
    assert first.metadata == {"date": "20260115", "compound": "glucose", "nucleus": "1H"}
    assert second.metadata == {**first.metadata, "first": "x"}


# --------------------------------------------------------------------------------------------------------- recording


@pytest.fixture
def saved(script: Script) -> list[HookConfig]:
    hooks = [
        builtin("file_filter", SEED_FILTER),
        builtin("redirect", {"rules": [{"storage": "A"}]}),
        script_hook(script("raise SystemExit('no')")),
    ]
    for hook in hooks:
        hook.save()
    return hooks


@pytest.mark.django_db
def test_how_hooks_did_is_recorded_in_few_updates(saved: list[HookConfig]) -> None:
    with CaptureQueriesContext(
        connection,
    ) as queries:
        engine.before_transfer(saved, [a_file() for _ in range(50)])
    assert len(queries) == 2  # one for those that went well, one for the one that failed
    for hook in saved:
        hook.refresh_from_db()
    well, _, failed = saved
    assert well.last_run_at
    assert (well.last_failed_at, well.last_error) == (None, None)
    assert failed.last_failed_at == failed.last_run_at == well.last_run_at
    assert failed.last_error == "the script ended with status 1: no"


@pytest.mark.django_db
def test_success_clears_the_error_and_keeps_its_time(saved: list[HookConfig]) -> None:
    failed_at = timezone.now()
    HookConfig.objects.filter(pk=saved[0].pk).update(last_failed_at=failed_at, last_error="once")
    engine.before_transfer(saved[:1], [a_file()])
    saved[0].refresh_from_db()
    assert (saved[0].last_failed_at, saved[0].last_error) == (failed_at, None)


def test_without_recording_the_database_is_not_touched(script: Script) -> None:
    """This test may not touch it either, so that a query is an error."""
    hooks = [builtin("file_filter", SEED_FILTER), script_hook(script("raise SystemExit('no')"))]
    assert before(hooks, a_file())[0].verdict is Verdict.HOLD


def test_the_longest_time_counts_every_script_and_webhook() -> None:
    assert engine.longest_seconds([builtin("file_filter", {})]) == 0
    one, other = engine.longest_seconds([script_hook("a")]), engine.longest_seconds([webhook("https://x")])
    assert one > scripts.TIMEOUT_SECONDS
    assert other > webhooks.BATCH_SECONDS
    assert engine.longest_seconds([script_hook("a"), webhook("https://x")]) == one + other


@pytest.mark.django_db
def test_a_secret_that_cannot_be_opened_holds_the_files(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    hook = webhook("https://lims.example.org/")
    hook.save()
    settings.ENCRYPTION_KEYS = ["A" * 43 + "="]
    with caplog.at_level(logging.DEBUG):
        (held,) = before([HookConfig.objects.get(pk=hook.pk)], a_file())
    assert held.verdict is Verdict.HOLD
    assert "STREAMWEAVE_ENCRYPTION_KEYS" in held.reason
    assert SECRET not in caplog.text


# -------------------------------------------------------------------------------------------------- which hooks, when


@pytest.mark.django_db
def test_an_instrument_meets_global_hooks_and_its_own_by_priority() -> None:
    mine, other = (
        Instrument.objects.create(name=name, cifs_host="samba", cifs_share=name.lower()) for name in ("NMR", "MS")
    )
    fields_of: dict[str, dict[str, Any]] = {
        "late": {"priority": 10},
        "mine": {"instrument": mine, "priority": 5},
        "early": {"priority": -1},
        "others": {"instrument": other},
        "disabled": {"enabled": False},
        "deleted": {"deleted_at": timezone.now()},
        "after": {"trigger": "post_transfer"},
        "late too": {"priority": 10},
    }
    for name, fields in fields_of.items():
        builtin("file_filter", {}, **{"name": name, **fields}).save()
    hooks = HookConfig.objects.active_for(mine.pk, "pre_transfer")
    assert [hook.name for hook in hooks] == ["early", "mine", "late", "late too"]
