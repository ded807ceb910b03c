"""Asks the hooks about files and puts their answers together.

Hooks are asked in the order in which they are given (see `HookConfig.objects.active_for`), each once per batch. What a
hook raises ends here: it counts as that hook's failure for the files it was asked about, and is recorded on it.
Nothing here may run inside a transaction, for scripts and receivers are waited for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from django.core.exceptions import ValidationError
from django.utils import timezone

from hooks import exchange, scripts, webhooks
from hooks.builtins import BUILTINS, AcceptRule, Builtin, EnrichRule, GrantRule
from hooks.decisions import AfterTransfer, BeforeTransfer, HookError, Verdict
from hooks.facts import FileFacts
from hooks.models import HookConfig, Implementation, Trigger
from hooks.text import storable
from hooks.validation import unknown_builtin, validate_config
from streamweave.lib.secrets import SecretError

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer", BeforeTransfer, AfterTransfer)

SECONDS = {
    Implementation.BUILTIN.value: 0.0,
    Implementation.PYTHON_SCRIPT.value: scripts.TIMEOUT_SECONDS + scripts.END_SECONDS,
    Implementation.HTTP_WEBHOOK.value: webhooks.BATCH_SECONDS + webhooks.RESOLVER_SECONDS,
}


def longest_seconds(hooks: Iterable[HookConfig]) -> float:
    """How long scripts and webhooks among `hooks` may keep one batch waiting, all together."""
    return sum(SECONDS[hook.implementation] for hook in hooks)


def are_prompt(hooks: Iterable[HookConfig]) -> bool:
    """Whether asking `hooks` takes no time to speak of: none leaves this process, or reads the content of a file."""
    return all(hook.implementation == Implementation.BUILTIN and not _reads_content(hook) for hook in hooks)


def _reads_content(hook: HookConfig) -> bool:
    builtin = BUILTINS.get(hook.builtin_name or "")
    return builtin is not None and builtin.reads_content(hook.config or {})


def before_transfer(
    hooks: Iterable[HookConfig], files: Sequence[FileFacts], *, record: bool = True
) -> list[BeforeTransfer]:
    """What is to become of each of `files`, in their order, by the pre_transfer hooks among `hooks`.

    The first hook that skips or holds a file decides; the later ones are not asked about it. A hook that fails holds
    the files it was asked about. Of several that redirect a file, the last one that names a storage has its way about
    the storage, and the last one that names a folder about the folder. With `record` false nothing is written to the
    database.
    """
    decisions = [BeforeTransfer() for _ in files]
    with_errors = []
    for hook in hooks:
        open_ = [index for index, decision in enumerate(decisions) if decision.verdict is Verdict.ACCEPT]
        if hook.trigger != Trigger.PRE_TRANSFER or _does_nothing(hook) or not open_:
            continue
        answers = _bounded(hook, _ask_before, [files[index] for index in open_])
        with_errors.append((hook, _first_error(answers)))
        for index, answer in zip(open_, answers, strict=True):
            decisions[index] = _decided(hook, decisions[index], answer)
    if record:
        _record(with_errors)
    return decisions


def enrich(hooks: Iterable[HookConfig], files: Sequence[FileFacts], *, record: bool = True) -> list[AfterTransfer]:
    """What the post_transfer hooks among `hooks` find out about each of `files`, in their order.

    Asks all but the builtins that grant access. Each hook sees the metadata that earlier ones found; scripts and
    webhooks may ask for grants too. A hook that fails for a file leaves a problem there and the others go on. With
    `record` false nothing is written to the database.
    """
    return _after(hooks, files, record, lambda hook: not _grants(hook))


def assign_access(
    hooks: Iterable[HookConfig], files: Sequence[FileFacts], *, record: bool = True
) -> list[AfterTransfer]:
    """Whom the builtins that grant access, among `hooks`, let see each of `files`, whose metadata is complete by now.

    The same as `enrich` in all else.
    """
    return _after(hooks, files, record, _grants)


def _after(
    hooks: Iterable[HookConfig], files: Sequence[FileFacts], record: bool, wanted: Callable[[HookConfig], bool]
) -> list[AfterTransfer]:
    found = [AfterTransfer() for _ in files]
    with_errors = []
    for hook in hooks:
        if hook.trigger != Trigger.POST_TRANSFER or _does_nothing(hook) or not files or not wanted(hook):
            continue
        known = [
            replace(file, metadata={**file.metadata, **so_far.metadata})
            for file, so_far in zip(files, found, strict=True)
        ]
        answers = _bounded(hook, _ask_after, known)
        with_errors.append((hook, _first_error(answers)))
        found = [_added(hook, so_far, answer) for so_far, answer in zip(found, answers, strict=True)]
    if record:
        _record(with_errors)
    return found


# --------------------------------------------------------------------------------------------------------- one hook


def _does_nothing(hook: HookConfig) -> bool:
    return hook.implementation == Implementation.BUILTIN and hook.config is None


def _grants(hook: HookConfig) -> bool:
    builtin = BUILTINS.get(hook.builtin_name or "")
    return hook.implementation == Implementation.BUILTIN and builtin is not None and issubclass(builtin, GrantRule)


def _bounded(
    hook: HookConfig,
    ask: Callable[[HookConfig, Sequence[FileFacts]], list[Answer | HookError]],
    files: Sequence[FileFacts],
) -> list[Answer | HookError]:
    """The hook's answers, or its error for every file: the one place where exceptions of a hook end."""
    try:
        answers = ask(hook, files)
    except (HookError, SecretError) as error:
        answers = [HookError(str(error))] * len(files)
    except Exception as error:
        logger.exception("The hook “%s” failed for %d files", hook, len(files))
        return [_unforeseen(error)] * len(files)
    first = _first_error(answers)
    if first:
        logger.warning("The hook “%s” failed for some or all of %d files: %s", hook, len(files), first)
    return answers


def _unforeseen(error: Exception) -> HookError:
    return HookError(storable(f"{type(error).__name__}: {error}", 500))


def _ask_before(hook: HookConfig, files: Sequence[FileFacts]) -> list[BeforeTransfer | HookError]:
    if hook.implementation != Implementation.BUILTIN:
        return _ask_outside(hook, files, exchange.answers_before)
    rule = _builtin(hook)
    if not isinstance(rule, AcceptRule):
        raise HookError(f"{hook.builtin_name} is no hook for {hook.trigger}")
    return [_one(rule.before_transfer, file) for file in files]


def _ask_after(hook: HookConfig, files: Sequence[FileFacts]) -> list[AfterTransfer | HookError]:
    if hook.implementation != Implementation.BUILTIN:
        return _ask_outside(hook, files, exchange.answers_after)
    rule = _builtin(hook)
    if not isinstance(rule, EnrichRule | GrantRule):
        raise HookError(f"{hook.builtin_name} is no hook for {hook.trigger}")
    return [_one(rule.after_transfer, file) for file in files]


def _builtin(hook: HookConfig) -> Builtin:
    """The builtin with its config, which may have been changed past its validation."""
    builtin = BUILTINS.get(hook.builtin_name or "")
    if not builtin:
        raise HookError(unknown_builtin(hook.builtin_name))
    try:
        validate_config(hook.implementation, hook.builtin_name, hook.config)
    except ValidationError as error:
        raise HookError(f"the config is invalid: {'; '.join(error.messages)}") from None
    return builtin(hook.config or {})


def _one(decide: Callable[[FileFacts], Answer], file: FileFacts) -> Answer | HookError:
    """A builtin's answer about one file; its error concerns no other."""
    try:
        return decide(file)
    except Exception as error:
        logger.debug("A builtin failed for %s", file.path, exc_info=True)
        return _unforeseen(error)


def _ask_outside(
    hook: HookConfig,
    files: Sequence[FileFacts],
    read: Callable[[bytes, Sequence[FileFacts]], list[Answer | HookError]],
) -> list[Answer | HookError]:
    if hook.implementation == Implementation.PYTHON_SCRIPT:
        question = exchange.question(hook.trigger, hook.config, files)
        return read(scripts.ask(hook.script_path or "", question), files)
    answers: list[Answer | HookError] = []
    deadline = time.monotonic() + webhooks.BATCH_SECONDS
    for question, count in exchange.questions(hook.trigger, hook.config, files, webhooks.MAX_BODY_BYTES):
        asked = files[len(answers) : len(answers) + count]
        try:
            answers += read(_post(hook, question, deadline), asked)
        except HookError as error:
            # The rest would most likely meet the same, and wait as long for it.
            return answers + [error] * (len(files) - len(answers))
    return answers


def _post(hook: HookConfig, question: bytes, deadline: float) -> bytes:
    seconds = min(webhooks.TIMEOUT_SECONDS, deadline - time.monotonic())
    if seconds <= 0:
        raise HookError(f"the receiver took more than {webhooks.BATCH_SECONDS:g} s for the whole batch")
    secret = hook.webhook_secret or ""
    return webhooks.ask(
        hook.webhook_url or "", secret, webhooks.message_id(hook.pk, question), question, seconds=seconds
    )


# ---------------------------------------------------------------------------------------------- putting together


def _decided(hook: HookConfig, so_far: BeforeTransfer, answer: BeforeTransfer | HookError) -> BeforeTransfer:
    if isinstance(answer, HookError):
        return BeforeTransfer(Verdict.HOLD, str(answer), hook.name)
    if answer.verdict is not Verdict.ACCEPT:
        return BeforeTransfer(answer.verdict, answer.reason or "gave no reason", hook.name)
    if not answer.storage and not answer.sub_path:
        return so_far
    return BeforeTransfer(
        hook_name=hook.name,
        storage=answer.storage or so_far.storage,
        sub_path=answer.sub_path or so_far.sub_path,
    )


def _added(hook: HookConfig, so_far: AfterTransfer, answer: AfterTransfer | HookError) -> AfterTransfer:
    if isinstance(answer, HookError):
        return replace(so_far, problems=(*so_far.problems, f"{hook.name}: {answer}"))
    return replace(
        so_far,
        metadata={**so_far.metadata, **answer.metadata},
        grants=tuple(dict.fromkeys((*so_far.grants, *answer.grants))),
    )


def _first_error(answers: Sequence[Any]) -> HookError | None:
    return next((answer for answer in answers if isinstance(answer, HookError)), None)


def _record(with_errors: Sequence[tuple[HookConfig, HookError | None]]) -> None:
    """Remember how the hooks did in this batch: one update for all that went well, one for each that did not."""
    now = timezone.now()
    well = [hook.pk for hook, error in with_errors if not error]
    if well:
        HookConfig.objects.filter(pk__in=well).update(last_run_at=now, last_error=None)
    for hook, error in with_errors:
        if error:
            HookConfig.objects.filter(pk=hook.pk).update(
                last_run_at=now, last_failed_at=now, last_error=storable(str(error))
            )
