"""Where a file goes: paths reserved on the rows before a byte is copied, unique on each storage."""

from __future__ import annotations

from collections.abc import Sequence

from harvest.batch import Batch
from harvest.models import FileTransfer, StorageLocation, path_key
from harvest.storage.base import Storage, StorageError


def wanted_path(transfer: FileTransfer, folder: str) -> str:
    """`<instrument folder>/<sub-path of a hook>/<source path>`; a later generation or version beside the first as
    name.g2.ext, name.v2.ext."""
    marks = ""
    if transfer.record.generation > 1:
        marks += f".g{transfer.record.generation}"
    if transfer.version.number > 1:
        marks += f".v{transfer.version.number}"
    return "/".join(part for part in (folder, transfer.sub_path, _marked(transfer.record.source_path, marks)) if part)


def _marked(path: str, marks: str) -> str:
    """The path with `marks` put before the last extension of its name."""
    if not marks:
        return path
    parent, slash, name = path.rpartition("/")
    stem, dot, extension = name.rpartition(".")
    if not stem:
        stem, dot, extension = name, "", ""
    return f"{parent}{slash}{stem}{marks}{dot}{extension}"


def key_of(path: str, location: StorageLocation) -> str:
    """What must be unique on the storage: the path, folded where the storage folds case."""
    return path.casefold() if location.folds_case else path


def reserve(batch: Batch, transfers: Sequence[FileTransfer], location: StorageLocation, storage: Storage) -> None:
    """Give each of `transfers`, all bound for `location`, its stored_path, on the objects; the caller writes them.

    What is reserved already is kept. A path that another file has (a case-only twin where case is folded, the name
    another file's version took) gets the next free number: name~2.ext. A path that the storage cannot hold fails its
    transfer, which leaves the batch; the others go on.
    """
    folder = batch.run.instrument.storage_folder
    open_ = {transfer: wanted_path(transfer, folder) for transfer in transfers if transfer.stored_path is None}
    taken: set[object] = set()
    number = 1
    while open_:
        candidates: dict[FileTransfer, str] = {}
        for transfer, path in list(open_.items()):
            try:
                candidates[transfer] = storage.stored_path(_marked(path, f"~{number}" if number > 1 else ""))
            except StorageError as error:
                batch.fail_by([transfer], "destination", error)
                del open_[transfer]
        keys = {transfer: path_key(key_of(path, location)) for transfer, path in candidates.items()}
        reserved = FileTransfer.objects.filter(storage_location=location, stored_path_key__in=keys.values())
        taken.update(reserved.values_list("stored_path_key", flat=True))
        for transfer, key in keys.items():
            if key not in taken:
                taken.add(key)
                transfer.stored_path, transfer.stored_path_key = candidates[transfer], key
                del open_[transfer]
        number += 1
