"""Places that keep files, and how to open one by its kind.

`KINDS` is the whole list. A new kind is one class in one module and one line here, or one line in the table that the
settings hand in.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from harvest.storage.base import Fault, Storage, StorageError

KINDS: Mapping[str, str] = {
    "posix": "harvest.storage.posix.PosixStorage",
    "s3": "harvest.storage.s3.S3Storage",
    "cifs": "harvest.storage.smb.SmbStorage",
}
"""Kind → dotted path of its class. `cifs` is what people call an SMB share."""


def storage_class(kind: str, *, kinds: Mapping[str, str] = KINDS) -> type[Storage]:
    """The class that implements `kind`. Raises StorageError(configuration) for a kind that is not in the table.

    Imported only when asked for, so that a web process that never speaks SMB need not load it.
    """
    try:
        dotted_path = kinds[kind]
    except KeyError:
        known = ", ".join(sorted(kinds))
        raise StorageError(Fault.CONFIGURATION, f"There is no storage kind “{kind}”. Choose one of: {known}.") from None
    module_name, _, class_name = dotted_path.rpartition(".")
    found: type[Storage] = getattr(import_module(module_name), class_name)
    return found


def open_storage(
    kind: str, base_path: str, config: Mapping[str, Any] | None, *, kinds: Mapping[str, str] = KINDS
) -> Storage:
    """The storage of `kind` at `base_path` that `config` describes (None is the empty config); not connected yet.

    Use it as a context manager: entering connects, leaving closes. Raises StorageError(configuration) for an unknown
    kind or a config that cannot be meant.
    """
    return storage_class(kind, kinds=kinds).from_config(base_path, config or {})
