"""What scripts and webhooks are asked, and what they answer. Both speak JSON, one question per batch.

The question::

    {"trigger": "pre_transfer" | "post_transfer",
     "config": the hook's config as it was entered, or null,
     "files": [{"id", "path", "filename", "size_bytes", "modified_at", "instrument_id", "instrument_name", "ark",
                "owner_id", "metadata"}, …]}

`modified_at` is in ISO 8601, UTC; the other fields are those of `FileFacts`.

The answer to pre_transfer speaks of every file; one that it leaves out is held::

    {"files": {"<id>": {"verdict": "accept" | "skip" | "hold", "reason": "…",
                        "storage": "<name or id>", "sub_path": "raw/2026"}, …}}

The answer to post_transfer speaks of the files about which there is something to say; no answer at all (an empty text)
says nothing::

    {"files": {"<id>": {"metadata": {…}, "grants": [{"to": "project", "name": "Kinase"}, …],
                        "problem": "why it did not work for this file; it is asked again later"}, …}}

All but `verdict` may be left out; a key that is not named here makes the answer for that file invalid.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from typing import Any

from hooks import grants, sub_paths
from hooks.decisions import AfterTransfer, BeforeTransfer, HookError, Verdict
from hooks.facts import FileFacts
from hooks.text import storable, why_not_json
from hooks.validation import schema_error

MAX_METADATA_BYTES = 65536
MAX_REASON_LENGTH = 500
NO_ANSWER = "the hook gave no answer about this file"

_REASON = {"type": ["string", "null"]}
_BEFORE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["verdict"],
    "properties": {
        "verdict": {"enum": [verdict.value for verdict in Verdict]},
        "reason": _REASON,
        "storage": {"type": ["string", "null"], "minLength": 1, "maxLength": 200},
        "sub_path": {"type": ["string", "null"], "minLength": 1},
    },
}
_AFTER = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "metadata": {"type": ["object", "null"], "propertyNames": {"minLength": 1, "maxLength": 200}},
        "grants": {
            "type": ["array", "null"],
            "maxItems": 100,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["to"],
                "properties": dict(grants.GRANT_PROPERTIES),
            },
        },
        "problem": _REASON,
    },
}


def described(file: FileFacts) -> dict[str, Any]:
    """A file as the question describes it."""
    return {
        "id": str(file.id),
        "path": file.path,
        "filename": file.filename,
        "size_bytes": file.size_bytes,
        "modified_at": file.modified_at.astimezone(UTC).isoformat(),
        "instrument_id": str(file.instrument_id),
        "instrument_name": file.instrument_name,
        "ark": file.ark,
        "owner_id": str(file.owner_id) if file.owner_id else None,
        "metadata": dict(file.metadata),
    }


def question(trigger: str, config: Any, files: Sequence[FileFacts]) -> bytes:
    """The question in ASCII: names that are not valid Unicode arrive as the escapes that JSON has for them."""
    return _joined(trigger, config, [json.dumps(described(file)) for file in files])


def questions(trigger: str, config: Any, files: Sequence[FileFacts], most_bytes: int) -> Iterator[tuple[bytes, int]]:
    """The question in parts of at most `most_bytes`, each with the number of files it asks about.

    A single file that does not fit is asked about alone.
    """
    empty_bytes = len(_joined(trigger, config, []))
    part: list[str] = []
    part_bytes = empty_bytes
    for file in files:
        text = json.dumps(described(file))
        if part and part_bytes + len(text) + 2 > most_bytes:
            yield _joined(trigger, config, part), len(part)
            part, part_bytes = [], empty_bytes
        part.append(text)
        part_bytes += len(text) + 2
    if part:
        yield _joined(trigger, config, part), len(part)


def _joined(trigger: str, config: Any, files: Sequence[str]) -> bytes:
    head = f'{{"trigger": {json.dumps(trigger)}, "config": {json.dumps(config)}, "files": ['
    return f"{head}{', '.join(files)}]}}".encode("ascii")


def answers_before(answer: bytes, files: Sequence[FileFacts]) -> list[BeforeTransfer | HookError]:
    """The answer to pre_transfer, in the order of `files`; an error where there is no valid one about a file.

    Raises HookError where it is no answer at all.
    """
    by_id = _by_id(answer, files)
    return [_before(by_id[str(file.id)]) if str(file.id) in by_id else HookError(NO_ANSWER) for file in files]


def answers_after(answer: bytes, files: Sequence[FileFacts]) -> list[AfterTransfer | HookError]:
    """The answer to post_transfer, in the order of `files`; an error where there is no valid one about a file, or
    where it tells of a problem.

    Raises HookError where it is no answer at all.
    """
    by_id = _by_id(answer, files)
    return [_after(by_id.get(str(file.id), {})) for file in files]


def _by_id(answer: bytes, files: Sequence[FileFacts]) -> Mapping[str, Any]:
    if not answer.strip():
        return {}
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise HookError(f"the answer is not JSON ({error}): {storable(answer[:200].decode('latin-1'), 100)}") from None
    if not isinstance(value, dict) or value.keys() != {"files"} or not isinstance(value["files"], dict):
        raise HookError('the answer is not of the form {"files": {"<id>": {…}}}')
    unknown = value["files"].keys() - {str(file.id) for file in files}
    if unknown:
        raise HookError(f"the answer speaks of a file that was not asked about: {storable(min(unknown), 100)}")
    by_id: Mapping[str, Any] = value["files"]
    return by_id


def _before(answer: Any) -> BeforeTransfer | HookError:
    wrong = _invalid(_BEFORE, answer)
    if not wrong and answer.get("sub_path"):
        wrong = _named("sub_path", sub_paths.why_not(answer["sub_path"]))
    if wrong:
        return HookError(f"the answer about this file is invalid: {wrong}")
    return BeforeTransfer(
        Verdict(answer["verdict"]),
        storable(answer.get("reason") or "", MAX_REASON_LENGTH),
        storage=answer.get("storage"),
        sub_path=answer.get("sub_path"),
    )


def _after(answer: Any) -> AfterTransfer | HookError:
    wrong = _invalid(_AFTER, answer)
    for index, grant in enumerate(() if wrong else answer.get("grants") or ()):
        wrong = wrong or _named(f"grants[{index}]", grants.why_not(grant))
    if wrong:
        return HookError(f"the answer about this file is invalid: {wrong}")
    if answer.get("problem"):
        return HookError(storable(answer["problem"], MAX_REASON_LENGTH))
    return AfterTransfer(
        answer.get("metadata") or {}, tuple(grants.request(grant) for grant in answer.get("grants") or ())
    )


def _invalid(schema: Mapping[str, Any], answer: Any) -> str | None:
    return why_not_json(answer, MAX_METADATA_BYTES) or schema_error(schema, answer)


def _named(field: str, why: str | None) -> str | None:
    return f"{field}: {why}" if why else None
