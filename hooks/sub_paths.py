"""Folders that hooks may send files to."""

from __future__ import annotations

MAX_LENGTH = 500
RESERVED = ".streamweave"
"""Our own folder on every storage (harvest.storage.base.RESERVED, which hooks may not import)."""


def why_not(sub_path: str) -> str | None:
    """Why files cannot be put below `sub_path`, or None if they can.

    It must be relative, with "/" between its components, none of them empty, "." or "..", none our own hidden folder.
    """
    if len(sub_path) > MAX_LENGTH:
        return f"it is longer than {MAX_LENGTH} characters"
    if "\\" in sub_path:
        return "it holds a backslash; write / between folders"
    if not sub_path.isprintable():
        return "it holds a character that cannot be printed"
    if sub_path.startswith("/"):
        return "it must be relative: leave out the / at its beginning"
    for name in sub_path.split("/"):
        if name in ("", ".", ".."):
            return f"it must consist of folder names with one / between them, and none may be “{name}”"
        if name.casefold() == RESERVED:
            return f"{RESERVED} is reserved"
    return None
