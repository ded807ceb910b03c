"""Text from files, file names and other programs, made fit for columns and regular expressions."""

from __future__ import annotations

import codecs
import json
from typing import Any

UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def storable(text: str, limit: int = 2000) -> str:
    """`text` as Unicode can express it and a database column takes it.

    Lone surrogates (names that are not valid Unicode have them) become U+FFFD, NUL characters go, and what is longer
    than `limit` characters is cut and ends in "…".
    """
    text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").replace("\0", "")
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def decode_head(head: bytes) -> str:
    """The text of the beginning of a file: UTF-16 by its mark, else UTF-8, else Latin-1.

    A character that the end of `head` cuts in two is left out.
    """
    encoding = "utf-16" if head.startswith(UTF16_MARKS) else "utf-8-sig"
    try:
        return codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError:
        return head.decode("latin-1")


def why_not_json(value: Any, limit_bytes: int) -> str | None:
    """Why `value` cannot be kept in a JSON column of either database, or None if it can."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        size_bytes = len(text.encode())
    except UnicodeEncodeError:
        return "it holds text that is not valid Unicode"
    except (ValueError, TypeError, RecursionError) as error:
        return f"it is not JSON that can be kept ({error})"
    if "\\u0000" in text.replace("\\\\", ""):
        return "it holds a NUL character"
    if size_bytes > limit_bytes:
        return f"it is {size_bytes} bytes long, more than {limit_bytes}"
    return None
