"""Patterns that people write: globs on names and paths, regular expressions in linear time.

Both run on RE2 (https://github.com/google/re2/wiki/Syntax), never on Python's own engine, which a pattern like
`^(a+)+$` keeps busy for ever. RE2 takes time proportional to pattern times text; both are bounded here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import re2

from hooks.facts import FileFacts
from hooks.text import storable

MAX_PATTERN_LENGTH = 1000
MAX_TEXT_LENGTH = 65536
"""Characters of a text that a regular expression is tried on; what lies behind is not looked at."""
MAX_PROGRAM_BYTES = 256 * 1024
"""Memory of one compiled pattern: it bounds the time (1.5 s for the worst found on 64 Ki characters)."""


class PatternError(ValueError):
    """A pattern cannot be used; the message says why."""


class Regex:
    """A regular expression in RE2's syntax. Raises PatternError where it is none."""

    def __init__(self, pattern: str) -> None:
        _refuse_long(pattern)
        try:
            self._compiled = _compiled(pattern, True)
        except PatternError as error:
            raise PatternError(
                f"it is no regular expression of RE2 (which has no look-ahead and no back-references): {error}"
            ) from None
        self.names: tuple[str, ...] = tuple(self._compiled.groupindex)

    def find(self, text: str) -> dict[str, str] | None:
        """The named groups of the first match that took part in it, or None where nothing matches."""
        match = self._compiled.search(storable(text[:MAX_TEXT_LENGTH], MAX_TEXT_LENGTH))
        return match and {name: value for name, value in match.groupdict().items() if value is not None}


class Glob:
    """A pattern like `*.tmp` or `raw/**/*.d`. Raises PatternError where it is none.

    Without "/" it is held against the file's name, with "/" against the whole path below the instrument's folder (one
    at the beginning changes nothing; one at the end means everything below). `*` is any run of characters but "/", `?`
    one, `[abc]` and `[!a-c]` one of a set, `**` between slashes any number of folders. Upper and lower case are alike,
    as they are on Windows shares.
    """

    def __init__(self, pattern: str) -> None:
        _refuse_long(pattern)
        if not pattern:
            raise PatternError("it is empty")
        if "\\" in pattern:
            raise PatternError("it holds a backslash; write / between folders and [*] for a character as it stands")
        self.pattern = pattern
        self._whole_path = "/" in pattern
        parts = pattern.removeprefix("/").split("/")
        if parts[-1] == "":
            parts[-1] = "**"
        self._compiled = _compiled(_path_regex(parts), False)

    def matches(self, file: FileFacts) -> bool:
        text = file.path if self._whole_path else file.filename
        return self._compiled.fullmatch(storable(text[:MAX_TEXT_LENGTH], MAX_TEXT_LENGTH)) is not None


def first_match(globs: Sequence[Glob], file: FileFacts) -> Glob | None:
    return next((glob for glob in globs if glob.matches(file)), None)


PATTERNS_SCHEMA: Mapping[str, Any] = {
    "type": "array",
    "maxItems": 200,
    "items": {"type": "string", "minLength": 1, "maxLength": MAX_PATTERN_LENGTH, "examples": ["*.tmp"]},
}
"""JSON schema of a list of globs. Users of it add title and description."""


def _refuse_long(pattern: str) -> None:
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise PatternError(f"it is longer than {MAX_PATTERN_LENGTH} characters")


@lru_cache(maxsize=1024)
def _compiled(pattern: str, case_sensitive: bool) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = MAX_PROGRAM_BYTES
    options.case_sensitive = case_sensitive
    options.dot_nl = not case_sensitive  # a file name may hold a line break, and a glob's * takes it in
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        why = error.args[0]
        why = why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)
        raise PatternError(why) from None
    except UnicodeEncodeError:
        raise PatternError("it is not valid Unicode") from None


def _path_regex(parts: Sequence[str]) -> str:
    """Globs of path components as one regular expression."""
    *folders, last = parts
    regex = "".join("(?:[^/]+/)*" if folder == "**" else f"{_name_regex(folder)}/" for folder in folders)
    return regex + (".+" if last == "**" and folders else _name_regex(last))


def _name_regex(glob: str) -> str:
    regex, at = "", 0
    while at < len(glob):
        end = glob.find("]", at + 3 if glob[at : at + 2] == "[!" else at + 2) if glob[at] == "[" else -1
        if end > 0:
            inner = glob[at + 1 : end]
            negated = inner.startswith("!")
            escaped = "".join(f"\\{char}" if char in "^[]\\&~|" else char for char in inner.removeprefix("!"))
            regex += f"[^/{escaped}]" if negated else f"[{escaped}]"
            at = end
        elif glob[at] == "*":
            regex += "[^/]*"
        elif glob[at] == "?":
            regex += "[^/]"
        else:
            regex += re2.escape(glob[at])
        at += 1
    return regex
