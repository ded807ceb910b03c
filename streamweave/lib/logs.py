"""Names and messages from outside, made safe to keep and to print."""

from __future__ import annotations

MAX_MESSAGE_CHARACTERS = 2000


def one_line(text: str) -> str:
    """`text` with control characters (line breaks, escapes, bidirectional overrides) written as escapes, cut to a
    sane length. A file named "x\\nERROR" gives one line."""
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
    return safe if len(safe) <= MAX_MESSAGE_CHARACTERS else f"{safe[: MAX_MESSAGE_CHARACTERS - 1]}…"
