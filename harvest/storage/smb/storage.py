"""An SMB share as a storage: an instrument's, which is only read, or one that keeps files."""

from __future__ import annotations

import logging
import re
import struct
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, Self

from smbprotocol.file_info import (
    FileAttributes,
    FileFsFullSizeInformation,
    FileInformationClass,
    FileLinkInformation,
    FileRenameInformation,
    FileSystemInformationClass,
    InfoType,
)
from smbprotocol.header import NtStatus
from smbprotocol.open import (
    CreateDisposition,
    CreateOptions,
    DirectoryAccessMask,
    FilePipePrinterAccessMask,
    Open,
    ShareAccess,
)

from harvest.storage import names
from harvest.storage.base import RESERVED, Check, Entry, Fault, Proof, Staged, Storage, StorageError, Unreadable
from harvest.storage.smb.classify import LIBRARY_ERRORS, classify, status_of
from harvest.storage.smb.listing import Listed, MalformedListingError, creation, moment, parse_listing, unique_id
from harvest.storage.smb.share import DEFAULT_PORT, Address, Share, change, flush, queried, query
from harvest.storage.smb.walk import entry, walk
from harvest.storage.trial import Steps, try_out

_TEMPORARY = "/".join((RESERVED, "tmp"))
_HOST = re.compile(r"(?:\[(?P<bracketed>[^\]]+)\]|(?P<plain>[^:\[\]]+))(?::(?P<port>\d+))?")

_READ = FilePipePrinterAccessMask.FILE_READ_DATA | FilePipePrinterAccessMask.FILE_READ_ATTRIBUTES
_WRITE = FilePipePrinterAccessMask.FILE_WRITE_DATA | FilePipePrinterAccessMask.FILE_READ_ATTRIBUTES
_LOOK = FilePipePrinterAccessMask.FILE_READ_ATTRIBUTES
_LIST = DirectoryAccessMask.FILE_LIST_DIRECTORY | DirectoryAccessMask.FILE_READ_ATTRIBUTES
_ADD = DirectoryAccessMask.FILE_ADD_FILE | DirectoryAccessMask.FILE_ADD_SUBDIRECTORY
_A_FILE = CreateOptions.FILE_NON_DIRECTORY_FILE
_A_FOLDER = CreateOptions.FILE_DIRECTORY_FILE
_THE_LINK_ITSELF = CreateOptions.FILE_OPEN_REPARSE_POINT

# [MS-FSCC] 2.4.29 FileNetworkOpenInformation: CreationTime, LastAccessTime, LastWriteTime, ChangeTime, AllocationSize,
# EndOfFile, FileAttributes; 2.4.22 FileInternalInformation: IndexNumber; 2.4.6 FileAttributeTagInformation.
_NETWORK_OPEN = struct.Struct("<qqqqqqI4x")
_INTERNAL = struct.Struct("<Q")
_ATTRIBUTE_TAG = struct.Struct("<II")

_UNABLE = frozenset(
    {
        # What a server says whose file system has no hard links, or that does not flush folders. Samba makes EPERM,
        # with which Linux answers link(2) there, the last one.
        NtStatus.STATUS_NOT_SUPPORTED,
        NtStatus.STATUS_INVALID_DEVICE_REQUEST,
        NtStatus.STATUS_INVALID_PARAMETER,
        NtStatus.STATUS_INVALID_INFO_CLASS,
        0xC0000002,  # NOT_IMPLEMENTED
        NtStatus.STATUS_ACCESS_DENIED,
    }
)

_STEPS: Steps = (
    ("reach the server", frozenset({Fault.UNREACHABLE, Fault.TIMEOUT})),
    ("log in", frozenset({Fault.AUTHENTICATION})),
    ("open the share", frozenset({Fault.NO_SUCH_SHARE, Fault.DENIED, Fault.CONFIGURATION})),
    ("open the base folder", frozenset({Fault.NOT_MOUNTED, Fault.NAME})),
)

log = logging.getLogger(__name__)


class SmbStorage(Storage):
    """Files on an SMB 2 or 3 share, signed always, encrypted where the server asks for it.

    A connection that breaks is given up; the next call makes a new one.
    """

    kind: ClassVar[str] = "cifs"
    config_schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {
            "host": {
                "type": "string",
                "minLength": 1,
                "title": "Host",
                "description": "Name or address of the server; “host:port” and “[IPv6]:port” are understood.",
            },
            "port": {"type": ["integer", "null"], "minimum": 1, "maximum": 65535, "title": "Port"},
            "share": {"type": "string", "minLength": 1, "pattern": r"^[^\\/]+$", "title": "Share"},
            "domain": {
                "type": ["string", "null"],
                "title": "Domain",
                "description": "Windows domain of the account; empty for a local account.",
            },
            "username": {"type": "string", "minLength": 1, "title": "User name"},
            "password": {"type": "string", "minLength": 1, "title": "Password"},
        },
        "required": ["host", "share", "username", "password"],
        "additionalProperties": False,
    }
    secret_fields: ClassVar[frozenset[str]] = frozenset({"password"})
    folds_case: ClassVar[bool] = True

    def __init__(self, base_path: str, address: Address) -> None:
        self.address = address
        self.base_path = "/".join(part for part in re.split(r"[/\\]", base_path) if part)
        if self.base_path:
            names.split(self.base_path)
        self._share: Share | None = None

    @classmethod
    def from_config(cls, base_path: str, config: Mapping[str, Any]) -> Self:
        host, port = _host_and_port(config["host"], config.get("port"))
        domain = config.get("domain")
        username = f"{domain}\\{config['username']}" if domain else config["username"]
        return cls(base_path, Address(host, port, config["share"], username, config["password"]))

    def connect(self) -> None:
        self.close()
        with self._told("") as share:
            try:
                share.ask(self._wire(""), access=_LIST, options=_A_FOLDER)
            except LIBRARY_ERRORS as error:
                raise self._without_base(error) from error

    def _without_base(self, error: BaseException) -> StorageError:
        told = classify(error, "", self._where(""))
        if told.fault not in (Fault.NOT_FOUND, Fault.NAME):
            return told
        return StorageError(
            Fault.NOT_MOUNTED, f"{self._where('')}: There is no such folder. Make it, or correct the base path."
        )

    def close(self) -> None:
        if self._share is not None:
            share, self._share = self._share, None
            share.close()

    # ------------------------------------------------------------------------------------------------- looking

    def walk(
        self, top: str = "", *, recursive: bool = True, advanced: Callable[[], None] = lambda: None
    ) -> Iterator[Entry | Unreadable]:
        """See Storage.walk. What leads elsewhere (symbolic links, junctions, DFS links), a folder met before, and a
        name that cannot be kept exactly are Unreadable(name)."""
        return walk(self._list_folder, self._look, top, recursive=recursive, advanced=advanced)

    def _list_folder(self, path: str) -> Iterator[Listed]:
        with self._handle(path, access=_LIST, options=_A_FOLDER) as (share, handle):
            for buffer in self._each(share.list_folder(handle), handle, path):
                try:
                    yield from parse_listing(buffer)
                except MalformedListingError as error:
                    raise StorageError(
                        Fault.IO, f"{self._where(path)}: The server's listing makes no sense: {error}.", path=path
                    ) from error

    def stat(self, path: str) -> Entry:
        names.split(path, separators="\\")
        listed = self._look(path)
        if listed.is_folder or listed.is_link:
            raise StorageError(Fault.NOT_FOUND, f"{self._where(path)}: It is not a file.", path=path)
        return entry(path, listed)

    def _look(self, path: str) -> Listed:
        """What a listing would say of the file or folder at `path`."""
        with self._told(path) as share:
            answers = share.ask(
                self._wire(path),
                query(FileInformationClass.FILE_NETWORK_OPEN_INFORMATION, _NETWORK_OPEN.size),
                query(FileInformationClass.FILE_INTERNAL_INFORMATION, _INTERNAL.size),
                query(FileInformationClass.FILE_ATTRIBUTE_TAG_INFORMATION, _ATTRIBUTE_TAG.size),
                access=_LOOK,
                options=_THE_LINK_ITSELF,
            )
            created, _, modified, changed, _, size, attributes = _NETWORK_OPEN.unpack(queried(answers[0]))
            (file_id,) = _INTERNAL.unpack(queried(answers[1]))
            _, reparse_tag = _ATTRIBUTE_TAG.unpack(queried(answers[2]))
        return Listed(
            name=path.rpartition("/")[2],
            size_bytes=size,
            modified_at=moment(modified),
            changed_at=moment(changed),
            created_at=creation(created, modified, changed),
            attributes=attributes,
            reparse_tag=reparse_tag,
            file_id=unique_id(file_id),
        )

    def read(self, path: str, *, offset: int = 0) -> Generator[bytes]:
        names.split(path, separators="\\")
        return self._read(path, path, offset=offset, past_cache=False)

    def _read(self, path: str, shown: str, *, offset: int, past_cache: bool) -> Generator[bytes]:
        with self._handle(path, access=_READ, options=_A_FILE, shown=shown) as (share, handle):
            yield from self._each(share.read(handle, offset=offset, past_cache=past_cache), handle, shown)

    # ------------------------------------------------------------------------------------------------- writing

    def stored_path(self, path: str) -> str:
        return names.encode(path, names.SMB)

    def write(self, path: str, token: str, chunks: Iterable[bytes]) -> Staged:
        """See Storage.write. What is written is flushed to the server's disk here, while its handle is open: SMB has
        no way to flush a batch, and opening every file again for it would cost more."""
        names.split(path, separators="\\")
        temporary = _temporary(token)
        handle = self._create(temporary, path)
        size_bytes = 0
        try:
            for chunk in chunks:
                rest = memoryview(chunk)
                while rest:
                    with self._told(path, handle=handle) as share:
                        written = share.write(handle, rest, offset=size_bytes)
                    size_bytes += written
                    rest = rest[written:]
            with self._told(path, handle=handle):
                handle.flush()
                handle.close()
        except BaseException:
            self._close_quietly(handle)
            with suppress(StorageError):
                self.discard(token, path)
            raise
        return Staged(ref=token, path=path, size_bytes=size_bytes, proof=Proof.READ_BACK)

    def _create(self, temporary: str, path: str) -> Open:
        try:
            return self._create_new(temporary, path)
        except StorageError as error:
            if error.fault is not Fault.NOT_FOUND:
                raise
        self._make_folders(_TEMPORARY, ours=True)
        return self._create_new(temporary, path)

    def _create_new(self, temporary: str, path: str) -> Open:
        with self._told(path, ours=True) as share:
            return share.open(
                self._wire(temporary),
                access=_WRITE,
                options=_A_FILE,
                disposition=CreateDisposition.FILE_CREATE,
                # Nobody may read or write it, but it may be discarded while a dead connection still holds it open.
                share=ShareAccess.FILE_SHARE_DELETE,
            )

    def make_durable(self, staged: Sequence[Staged]) -> None:
        """See Storage.make_durable. `write` has seen to it."""

    def read_back(self, staged: Staged) -> Iterator[bytes]:
        return self._read(_temporary(staged.ref), staged.path, offset=0, past_cache=True)

    def publish(self, staged: Sequence[Staged]) -> Iterator[StorageError | None]:
        """See Storage.publish. By a hard link, and a rename only where the server has no links: Samba looks whether a
        name is taken before it renames, so that of two at the same time both win and one file is lost; a link is made
        or refused in one act."""
        touched: set[str] = set()
        broken: StorageError | None = None
        try:
            for item in staged:
                if broken is None:
                    try:
                        self._publish(item, touched)
                    except StorageError as error:
                        broken = error if error.whole_storage else None
                        yield error
                    else:
                        yield None
                else:  # the others would meet it too, each after waiting for a server that does not answer
                    yield broken
        finally:
            self._flush_folders(touched)

    def _publish(self, staged: Staged, touched: set[str]) -> None:
        temporary = _temporary(staged.ref)
        folder = "/".join(names.split(staged.path, separators="\\")[:-1])
        if folder not in touched:
            self._look(temporary)  # before folders are made for nothing
            self._make_folders(folder)
            touched.update(_with_parents(folder))
        try:
            self._rename(FileLinkInformation(), temporary, staged.path)
        except StorageError as error:
            if status_of(error.__cause__) not in _UNABLE:
                raise
            self._rename(FileRenameInformation(), temporary, staged.path)
        else:
            try:
                self.discard(staged.ref, staged.path)
            except StorageError as error:
                log.warning("Published, but its temporary name could not be removed: %s", error)

    def _flush_folders(self, folders: Iterable[str]) -> None:
        """Make the names in them durable. [MS-FSA] 2.1.5.7 lets a folder be flushed; a server that does not has its
        own idea of when names are durable, and knows no better way to ask for it."""
        for folder in folders:
            try:
                with self._told(folder) as share:
                    share.ask(self._wire(folder), flush(), access=_ADD, options=_A_FOLDER)
            except StorageError as error:
                if status_of(error.__cause__) not in _UNABLE:
                    raise
                log.info("The server does not flush folders: %s", error)

    def _rename(
        self, information: FileLinkInformation | FileRenameInformation, old: str, new: str, *, replace: bool = False
    ) -> None:
        information["replace_if_exists"] = replace
        information["file_name"] = self._wire(new)
        with self._told(new) as share:
            share.ask(
                self._wire(old),
                change(information),
                access=FilePipePrinterAccessMask.DELETE | FilePipePrinterAccessMask.FILE_WRITE_ATTRIBUTES,
                options=_A_FILE | _THE_LINK_ITSELF,
            )

    def _make_folders(self, folder: str, *, ours: bool = False) -> None:
        """Make `folder` and what is missing above it; somebody else may be making the same. `ours` are hidden."""
        for path in _with_parents(folder):
            if path:
                attributes = FileAttributes.FILE_ATTRIBUTE_DIRECTORY
                if ours:
                    attributes |= FileAttributes.FILE_ATTRIBUTE_HIDDEN
                with self._told(path, ours=ours) as share:
                    share.ask(
                        self._wire(path),
                        access=_LOOK,
                        options=_A_FOLDER,
                        disposition=CreateDisposition.FILE_OPEN_IF,
                        attributes=attributes,
                    )

    def discard(self, ref: str, path: str) -> None:
        self._delete(_temporary(ref), path)

    def delete(self, path: str) -> None:
        names.split(path, separators="\\")
        self._delete(path, path)

    def _delete(self, path: str, shown: str) -> None:
        try:
            with self._told(shown) as share:
                share.ask(
                    self._wire(path),
                    access=FilePipePrinterAccessMask.DELETE,
                    options=_A_FILE | _THE_LINK_ITSELF | CreateOptions.FILE_DELETE_ON_CLOSE,
                )
        except StorageError as error:
            being_deleted = status_of(error.__cause__) == NtStatus.STATUS_DELETE_PENDING
            if error.fault is not Fault.NOT_FOUND and not being_deleted:
                raise

    # -------------------------------------------------------------------------------------- our own small files

    def read_reserved(self, name: str) -> bytes | None:
        try:
            return b"".join(self.read(f"{RESERVED}/{name}"))
        except StorageError as error:
            if error.fault is Fault.NOT_FOUND:
                return None
            raise

    def write_reserved(self, name: str, content: bytes) -> None:
        path = f"{RESERVED}/{name}"
        staged = self.write(path, f"reserved-{uuid.uuid4().hex}", [content])
        folder = path.rpartition("/")[0]
        try:
            self._make_folders(folder, ours=True)
            self._rename(FileRenameInformation(), _temporary(staged.ref), path, replace=True)
        except StorageError:
            with suppress(StorageError):
                self.discard(staged.ref, path)
            raise
        self._flush_folders(_with_parents(folder))

    # ------------------------------------------------------------------------------------------------- health

    def free_bytes(self) -> int | None:
        with self._told("") as share:
            (answer,) = share.ask(
                self._wire(""),
                query(
                    FileSystemInformationClass.FILE_FS_FULL_SIZE_INFORMATION,
                    len(FileFsFullSizeInformation()),
                    info_type=InfoType.SMB2_0_INFO_FILESYSTEM,
                ),
                access=_LOOK,
                options=_A_FOLDER,
            )
            sizes = FileFsFullSizeInformation()
            sizes.unpack(queried(answer))
        unit_bytes: int = sizes["sectors_per_unit"].get_value() * sizes["bytes_per_sector"].get_value()
        return int(sizes["caller_available_units"].get_value()) * unit_bytes

    def clock_offset_seconds(self) -> float | None:
        with self._told("") as share:
            return share.clock_offset_seconds

    def leftovers(self) -> Iterator[tuple[str, str]]:
        try:
            for listed in self._list_folder(_TEMPORARY):
                if not listed.is_folder and names.is_token(listed.name):
                    yield listed.name, listed.name
        except StorageError as error:
            if error.fault is not Fault.NOT_FOUND:
                raise

    def check(self, *, write: bool = True) -> list[Check]:
        return try_out(self, _STEPS, write=write)

    # --------------------------------------------------------------------------------------------- the connection

    @contextmanager
    def _told(self, path: str, *, handle: Open | None = None, ours: bool = False) -> Iterator[Share]:
        """The connection, made if there is none; the library's errors about `path` become ours.

        A connection that failed is given up, and a `handle` that was opened on it is of no use any more. `ours`: a
        folder of our own, where being denied means that nothing can be written here at all.
        """
        try:
            if handle is not None and not (self._share and self._share.owns(handle)):
                raise ConnectionResetError("the connection was lost while the file was open")
            if self._share is None:
                self._share = self._connected()
            yield self._share
        except LIBRARY_ERRORS as error:
            told = classify(error, path, self._where(path))
            if told.fault in (Fault.UNREACHABLE, Fault.TIMEOUT):
                self._give_up()
            if ours and told.fault is Fault.DENIED:
                told = StorageError(
                    Fault.READ_ONLY,
                    f"{self._where('')}: The account may not write here, or the share is read-only. Grant "
                    f"{self.address.username} the right to change files.",
                    path=path,
                )
            raise told from error

    def _connected(self) -> Share:
        try:
            return Share.connect(self.address)
        except LIBRARY_ERRORS as error:
            told = classify(error, "", str(self.address))
            if told.fault is Fault.NOT_FOUND:  # a few servers say so of a share
                told = StorageError(Fault.NO_SUCH_SHARE, f"{self.address}: There is no such share. Correct its name.")
            raise told from error

    def _give_up(self) -> None:
        if self._share is not None:
            share, self._share = self._share, None
            share.abandon()

    @contextmanager
    def _handle(
        self, path: str, *, access: int, options: int, shown: str | None = None
    ) -> Iterator[tuple[Share, Open]]:
        shown = path if shown is None else shown
        with self._told(shown) as share:
            handle = share.open(self._wire(path), access=access, options=options)
        try:
            yield share, handle
        finally:
            self._close_quietly(handle)

    def _each(self, pieces: Iterator[bytes], handle: Open, path: str) -> Iterator[bytes]:
        """`pieces`, which come over the wire through `handle` one by one."""
        while True:
            with self._told(path, handle=handle):
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece

    def _close_quietly(self, handle: Open) -> None:
        """Close a handle of which nothing more is wanted; with its connection it is gone anyhow."""
        if self._share and self._share.owns(handle):
            with suppress(StorageError), self._told("", handle=handle):
                handle.close()

    def _wire(self, path: str) -> str:
        return "\\".join(part for part in (*self.base_path.split("/"), *path.split("/")) if part)

    def _where(self, path: str) -> str:
        below = self._wire(path)
        return f"{self.address}\\{below}" if below else str(self.address)


def _temporary(token: str) -> str:
    return f"{_TEMPORARY}/{names.check_token(token)}"


def _with_parents(folder: str) -> list[str]:
    """`folder` and all above it, from the base folder ("") down."""
    parts = folder.split("/") if folder else []
    return ["/".join(parts[:depth]) for depth in range(len(parts) + 1)]


def _host_and_port(host: str, port: int | None) -> tuple[str, int]:
    """“host”, “host:port”, “[v6]:port” or a bare IPv6 address. Raises StorageError(configuration)."""
    if host.count(":") > 1 and not host.startswith("["):
        return host, port or DEFAULT_PORT
    found = _HOST.fullmatch(host)
    if not found or (found["port"] and not 0 < int(found["port"]) < 65536):
        raise StorageError(
            Fault.CONFIGURATION, f"{host!r} is no host: write a name or an address, with “:port” after it if needed."
        )
    return found["bracketed"] or found["plain"], int(found["port"] or port or DEFAULT_PORT)
