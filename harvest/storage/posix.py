"""A folder on this machine: a disk, or whatever is mounted there.

Every folder below the base path is opened relative to its parent and never through a symbolic link (openat(2) with
O_NOFOLLOW), so that no link, planted or swapped in at any moment, leads out of the base path. The base path itself may
be a link: it is the administrator's word.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import uuid
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Self

from harvest.storage import names
from harvest.storage.base import (
    CHUNK_BYTES,
    RESERVED,
    Check,
    Entry,
    Fault,
    Proof,
    Reading,
    Staged,
    Storage,
    StorageError,
    Unreadable,
)
from harvest.storage.trial import Steps, try_out

SYNC_ALL_FROM = 16
"""From how many files on the whole file system is synced at once instead of each file by itself."""

_TEMPORARY = (RESERVED, "tmp")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_RENAME_NOREPLACE = 1  # <linux/fs.h>
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime.max.replace(tzinfo=UTC)
_EARLIEST = datetime.min.replace(tzinfo=UTC)
_HOLE_BYTES = 64 * 1024
_BUFFER_BYTES = 256 * 1024
"""In which bytes are read back: small enough to stay in the processor's cache until they are summed."""
_ZEROS = bytes(CHUNK_BYTES)
_LIBC = ctypes.CDLL(None, use_errno=True)

_STEPS: Steps = (("open the folder", frozenset({Fault.NOT_MOUNTED, Fault.DENIED, Fault.CONFIGURATION})),)

_FAULTS: Mapping[int, tuple[Fault, str]] = {
    errno.ENOENT: (Fault.NOT_FOUND, "It does not exist."),
    errno.EEXIST: (Fault.EXISTS, "A file of that name exists already; it was left as it is."),
    errno.EACCES: (Fault.DENIED, "The account that runs StreamWeave may not do that. Change the permissions."),
    errno.EPERM: (Fault.DENIED, "The system does not permit it. Look for an immutable flag or a security policy."),
    errno.ELOOP: (Fault.DENIED, "A symbolic link is in the way, and links are never followed. Remove it."),
    errno.EROFS: (Fault.READ_ONLY, "The file system is mounted read-only. Mount it for writing."),
    errno.EDQUOT: (Fault.FULL, "The disk quota is used up. Raise it or make room."),
    errno.EIO: (Fault.IO, "The disk reports an input/output error. Check its health before you trust it."),
    errno.ENAMETOOLONG: (Fault.NAME, "The name is too long for the file system."),
    errno.EILSEQ: (Fault.NAME, "The file system cannot hold that name."),
    errno.EINVAL: (Fault.NAME, "The file system cannot hold that name."),
    errno.ENOTDIR: (Fault.NAME, "A file or a symbolic link stands where a folder is needed. Move it away."),
    errno.EISDIR: (Fault.NAME, "A folder stands where a file is needed. Move it away."),
    errno.EXDEV: (
        Fault.CONFIGURATION,
        "Another file system is mounted below the base path, and nothing can be moved there in one step. "
        "Make it a storage location of its own.",
    ),
    errno.ETXTBSY: (Fault.LOCKED, "It is in use."),
    errno.EBUSY: (Fault.LOCKED, "It is in use."),
    errno.EFBIG: (Fault.CONFIGURATION, "The file is larger than the file system or a limit (ulimit -f) allows."),
    errno.ESTALE: (Fault.NOT_MOUNTED, "The mount has gone stale. Mount the disk again."),
    errno.ENODEV: (Fault.NOT_MOUNTED, "The disk is gone. Mount it again."),
    errno.ENXIO: (Fault.NOT_MOUNTED, "The disk is gone. Mount it again."),
    errno.ENOTCONN: (Fault.UNREACHABLE, "The file server behind the mount does not answer."),
    errno.EHOSTDOWN: (Fault.UNREACHABLE, "The file server behind the mount does not answer."),
    errno.EHOSTUNREACH: (Fault.UNREACHABLE, "The file server behind the mount does not answer."),
    errno.ETIMEDOUT: (Fault.TIMEOUT, "The file server behind the mount did not answer in time."),
}


def classify(error: OSError, where: str, path: str) -> StorageError:
    """What `error` means, which `where` and `path` name to a person."""
    fault, advice = _FAULTS.get(error.errno or 0, (Fault.IO, "The system gave no further reason."))
    return StorageError(fault, f"{where}: {error.strerror or error}. {advice}", path=path)


class PosixStorage(Storage):
    """Files in a folder of this machine. Atomic by renameat2(2) or link(2), durable by fsync(2) or syncfs(2)."""

    kind: ClassVar[str] = "posix"
    config_schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {},
        "additionalProperties": False,
    }

    def __init__(self, base_path: str) -> None:
        if not base_path.startswith("/"):
            raise StorageError(
                Fault.CONFIGURATION, f"The base path must be an absolute path like /storage/archive, not {base_path!r}."
            )
        self.base_path = base_path
        self._base: int | None = None
        self._temporary: int | None = None

    @classmethod
    def from_config(cls, base_path: str, config: Mapping[str, Any]) -> Self:
        return cls(base_path)

    def connect(self) -> None:
        self.close()
        try:
            self._base = os.open(self.base_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise StorageError(
                Fault.NOT_MOUNTED,
                f"There is no folder {self.base_path} on this machine. Mount the disk, or make the folder, or correct "
                "the base path.",
            ) from None
        except OSError as error:
            raise classify(error, self.base_path, "") from error

    def close(self) -> None:
        self._close_temporary_folder()
        if self._base is not None:
            os.close(self._base)
            self._base = None

    # ------------------------------------------------------------------------------------------------- looking

    def walk(
        self, top: str = "", *, recursive: bool = True, advanced: Callable[[], None] = lambda: None
    ) -> Iterator[Entry | Unreadable]:
        """See Storage.walk. Symbolic links are Unreadable(name); sockets, pipes and devices are no files."""
        pending = [tuple(top.split("/")) if top else ()]
        while pending:
            parts = pending.pop()
            if parts[:1] == (RESERVED,):
                continue
            advanced()
            folders: list[str] = []
            try:
                yield from self._list(parts, folders)
            except StorageError as error:
                if error.whole_storage:
                    raise
                yield Unreadable("/".join(parts), error)
            if not recursive:
                return
            pending += [(*parts, name) for name in sorted(folders, reverse=True)]

    def _list(self, parts: tuple[str, ...], folders: list[str]) -> Iterator[Entry | Unreadable]:
        with self._folder(parts) as folder, self._told("/".join(parts)), os.scandir(folder) as listing:
            for item in listing:
                path = "/".join((*parts, item.name))
                if not _is_text(item.name):
                    yield _unreadable(path, "The name is not valid UTF-8 and could not be kept exactly. Rename it.")
                elif item.is_symlink():
                    yield _unreadable(path, "It is a symbolic link, and links are not followed.")
                elif item.is_dir(follow_symlinks=False):
                    folders.append(item.name)
                elif item.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):  # deleted since the listing
                        yield _entry(path, item.stat(follow_symlinks=False))

    def stat(self, path: str) -> Entry:
        with self._parent(path) as (folder, name), self._told(path):
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode):
            raise StorageError(Fault.NOT_FOUND, f"{self._full(path)}: It is not a file.", path=path)
        return _entry(path, found)

    def read(self, path: str, *, offset: int = 0) -> Generator[bytes]:
        with self._parent(path) as (folder, name):
            yield from self._read(folder, name, path, offset=offset)

    def _read(self, folder: int, name: str, path: str, *, offset: int) -> Iterator[bytes]:
        try:
            handle = os.open(name, _READ, dir_fd=folder)
            try:
                if offset:
                    os.lseek(handle, offset, os.SEEK_SET)
                while piece := os.read(handle, CHUNK_BYTES):
                    yield piece
            finally:
                os.close(handle)
        except OSError as error:
            raise self._explained(error, path) from error

    # ------------------------------------------------------------------------------------------------- writing

    def stored_path(self, path: str) -> str:
        return names.encode(path, names.POSIX)

    def write(
        self, path: str, token: str, chunks: Iterable[bytes | memoryview], *, modified_at: datetime | None = None
    ) -> Staged:
        names.split(path)
        names.check_token(token)
        handle = self._create(token, path)
        try:
            size_bytes = self._fill(handle, chunks, path, modified_at)
        except BaseException:
            with suppress(OSError):
                os.unlink(token, dir_fd=self._temporary_folder())
            raise
        return Staged(ref=token, path=path, size_bytes=size_bytes, proof=Proof.READ_BACK)

    def _create(self, token: str, path: str) -> int:
        with self._told(path):
            try:
                return os.open(token, _CREATE, 0o666, dir_fd=self._temporary_folder())
            except FileNotFoundError:  # somebody has removed the folder since we opened it
                self._close_temporary_folder()
                return os.open(token, _CREATE, 0o666, dir_fd=self._temporary_folder())

    def _fill(self, handle: int, chunks: Iterable[bytes | memoryview], path: str, modified_at: datetime | None) -> int:
        """Write `chunks` and close `handle`; a network file system may report only then that it is full. Pieces of
        nothing but zeros become holes."""
        size_bytes, ends_in_hole = 0, False
        try:
            for chunk in chunks:
                try:
                    ends_in_hole = _is_hole(chunk)
                    if ends_in_hole:
                        os.lseek(handle, len(chunk), os.SEEK_CUR)
                    else:
                        _write_all(handle, chunk)
                except OSError as error:
                    raise self._explained(error, path, written_bytes=size_bytes) from error
                size_bytes += len(chunk)
            with self._told(path, written_bytes=size_bytes):
                if ends_in_hole:
                    os.ftruncate(handle, size_bytes)
                if modified_at is not None:
                    moment = (modified_at - _EPOCH) // timedelta(microseconds=1) * 1000
                    os.utime(handle, ns=(moment, moment))
        except BaseException:
            with suppress(OSError):
                os.close(handle)
            raise
        with self._told(path, written_bytes=size_bytes):
            os.close(handle)
        return size_bytes

    def make_durable(self, staged: Sequence[Staged]) -> None:
        """See Storage.make_durable. A few files are synced one by one; for many, one syncfs(2) commits the journal
        once instead of once a file, which is what makes small files fast. What it might not report (before Linux 5.8
        it hid write errors), reading back past the cache does."""
        if not staged:
            return
        folder = self._temporary_folder()
        if len(staged) >= SYNC_ALL_FROM:
            self._sync_all()
            return
        for item in staged:
            try:
                self._sync(folder, item.ref, item.path)
            except StorageError as error:  # what is gone is told when it is read back, and holds nobody up
                if error.fault is not Fault.NOT_FOUND:
                    raise
        with self._told(""):
            os.fsync(folder)

    def _sync_all(self) -> None:
        with self._told(""):
            _call(_LIBC.syncfs, self._connected())

    def _sync(self, folder: int, name: str, path: str) -> None:
        with self._told(path):
            handle = os.open(name, _READ, dir_fd=folder)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def read_back(self, staged: Staged) -> Iterator[bytes]:
        return (bytes(piece) for piece in self._echo(staged, bytearray(_BUFFER_BYTES)))

    def read_back_many(self, staged: Iterable[Staged]) -> Generator[Reading]:
        buffer = bytearray(_BUFFER_BYTES)
        for item in staged:
            yield _ReadBack(item.path, self._echo(item, buffer))

    def _echo(self, staged: Staged, buffer: bytearray) -> Iterator[memoryview]:
        """The bytes, all pieces in the one `buffer`."""
        names.check_token(staged.ref)
        view, passed_bytes = memoryview(buffer), 0
        try:
            handle = os.open(staged.ref, _READ, dir_fd=self._temporary_folder())
            try:
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
                while count := os.readv(handle, [buffer]):
                    yield view[:count]
                    passed_bytes += count
                    if count < len(buffer) and passed_bytes == staged.size_bytes:
                        return  # more was asked for, and there is none
            finally:
                os.close(handle)
        except OSError as error:
            raise self._explained(error, staged.path) from error

    def publish(self, staged: Sequence[Staged]) -> Iterator[StorageError | None]:
        touched: set[tuple[str, ...]] = set()
        try:
            with ExitStack() as opened:
                where: tuple[tuple[str, ...], int] | None = None
                for item in staged:
                    try:
                        names.check_token(item.ref)
                        *above, name = names.split(item.path)
                        with self._told(item.path):  # before folders are made for nothing
                            os.stat(item.ref, dir_fd=self._temporary_folder(), follow_symlinks=False)
                        if where is None or where[0] != tuple(above):
                            opened.close()
                            where = None
                            folder = opened.enter_context(self._folder(tuple(above), made=touched, path=item.path))
                            where = tuple(above), folder
                        with self._told(item.path):
                            _rename_without_replacing(self._temporary_folder(), item.ref, where[1], name)
                        touched.add(where[0])
                    except StorageError as error:
                        yield error
                    else:
                        yield None
        finally:
            self._sync_folders(touched)

    def discard(self, ref: str, path: str) -> None:
        names.check_token(ref)
        self._unlink((*_TEMPORARY, ref), path)

    def delete(self, path: str) -> None:
        self._unlink(names.split(path), path)

    def _unlink(self, parts: tuple[str, ...], path: str) -> None:
        try:
            with self._folder(parts[:-1], path=path) as folder, self._told(path):
                os.unlink(parts[-1], dir_fd=folder)
        except StorageError as error:
            if error.fault is not Fault.NOT_FOUND:
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
        parts = names.split(path)
        staged = self.write(path, f"reserved-{uuid.uuid4().hex}", [content])
        touched = {parts[:-1]}
        source = self._temporary_folder()
        with self._folder(parts[:-1], made=touched) as target:
            self._sync(source, staged.ref, path)
            with self._told(path):
                os.replace(staged.ref, parts[-1], src_dir_fd=source, dst_dir_fd=target)
        self._sync_folders(touched)

    # ------------------------------------------------------------------------------------------------- health

    def free_bytes(self) -> int | None:
        with self._told(""):
            found = os.fstatvfs(self._connected())
        return found.f_bavail * found.f_frsize

    def leftovers(self) -> Iterator[tuple[str, str]]:
        with self._told(""), os.scandir(self._temporary_folder()) as listing:
            for item in listing:
                if names.is_token(item.name) and item.is_file(follow_symlinks=False):
                    yield item.name, item.name

    def check(self, *, write: bool = True) -> list[Check]:
        return try_out(self, _STEPS, write=write)

    # ------------------------------------------------------------------------------------------------- folders

    def _connected(self) -> int:
        if self._base is None:
            raise ValueError("This storage is not connected: use it as a context manager.")
        return self._base

    def _full(self, path: str) -> str:
        return f"{self.base_path.rstrip('/')}/{path}" if path else self.base_path

    @contextmanager
    def _told(self, path: str, *, written_bytes: int | None = None) -> Iterator[None]:
        """Turn the system's errors about `path` into ours."""
        try:
            yield
        except OSError as error:
            raise self._explained(error, path, written_bytes=written_bytes) from error

    def _explained(self, error: OSError, path: str, *, written_bytes: int | None = None) -> StorageError:
        if error.errno == errno.ENOSPC:
            return self._full_disk(path, written_bytes)
        return classify(error, self._full(path), path)

    def _full_disk(self, path: str, written_bytes: int | None) -> StorageError:
        found = os.fstatvfs(self._connected())
        free = found.f_bavail * found.f_frsize
        held = f" after {written_bytes:,} bytes" if written_bytes is not None else ""
        inodes = "" if found.f_favail or not found.f_files else " It has no inode left for another file."
        return StorageError(
            Fault.FULL,
            f"{self._full(path)}: The disk is full{held}; {free:,} bytes are free now.{inodes} Make room on "
            f"{self.base_path}.",
            path=path,
        )

    @contextmanager
    def _folder(
        self, parts: tuple[str, ...], *, made: set[tuple[str, ...]] | None = None, path: str | None = None
    ) -> Iterator[int]:
        """The folder at `parts`, open. With `made`, folders that are missing are made, and those that must be synced
        to keep them are added to it. `path` is the file that it is wanted for, if it is for one."""
        path = "/".join(parts) if path is None else path
        with self._told(path):
            handle = os.dup(self._connected())
        try:
            for depth, name in enumerate(parts):
                with self._told(path):
                    if made is not None and _make_folder(handle, name):
                        made.update((parts[:depth], parts[: depth + 1]))
                    below = os.open(name, _FOLDER, dir_fd=handle)
                os.close(handle)
                handle = below
            yield handle
        finally:
            os.close(handle)

    @contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        *above, name = names.split(path)
        with self._folder(tuple(above), path=path) as folder:
            yield folder, name

    def _temporary_folder(self) -> int:
        """Where staged bytes lie, open until the storage is closed; made, durably, at the first use."""
        if self._temporary is None:
            made: set[tuple[str, ...]] = set()
            with self._folder(_TEMPORARY, made=made) as folder:
                self._sync_folders(made)
                self._temporary = os.dup(folder)
        return self._temporary

    def _close_temporary_folder(self) -> None:
        if self._temporary is not None:
            os.close(self._temporary)
            self._temporary = None

    def _sync_folders(self, folders: Collection[tuple[str, ...]]) -> None:
        if len(folders) >= SYNC_ALL_FROM:
            self._sync_all()
            return
        for parts in folders:
            path = "/".join(parts)
            with self._folder(parts) as folder, self._told(path):
                os.fsync(folder)


def _is_hole(chunk: bytes | memoryview) -> bool:
    """Whether it is large and nothing but zeros."""
    return len(chunk) >= _HOLE_BYTES and bytes(chunk[:64]) == _ZEROS[:64] and bytes(chunk) == _ZEROS[: len(chunk)]


def _write_all(handle: int, content: bytes | memoryview) -> None:
    written = os.write(handle, content)
    while written < len(content):
        written += os.write(handle, memoryview(content)[written:])


class _ReadBack(Reading):
    def __init__(self, path: str, pieces: Iterator[memoryview]) -> None:
        super().__init__(path)
        self._pieces = pieces

    def chunks(self) -> Iterator[memoryview]:
        return self._pieces

    def look(self) -> Entry:
        raise ValueError("What is read back has no name yet to be looked at.")


def _make_folder(parent: int, name: str) -> bool:
    """Make it unless it is there; whether it was made. Its mode is what the umask leaves of 777."""
    try:
        os.mkdir(name, 0o777, dir_fd=parent)
    except FileExistsError:
        return False
    return True


def _rename_without_replacing(source: int, name: str, target: int, new_name: str) -> None:
    """renameat2(2) with RENAME_NOREPLACE; link(2) and unlink(2) where the file system (NFS) does not know that."""
    try:
        _call(_LIBC.renameat2, source, os.fsencode(name), target, os.fsencode(new_name), _RENAME_NOREPLACE)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise
        os.link(name, new_name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
        os.unlink(name, dir_fd=source)


def _call(function: Any, *arguments: int | bytes) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _is_text(name: str) -> bool:
    return name.isascii() or not any("\ud800" <= character <= "\udfff" for character in name)


def _unreadable(path: str, reason: str) -> Unreadable:
    shown = path.encode("utf-8", "backslashreplace").decode()
    return Unreadable(shown, StorageError(Fault.NAME, f"{shown}: {reason}", path=shown))


def _entry(path: str, found: os.stat_result) -> Entry:
    try:
        modified_at = _EPOCH + timedelta(microseconds=found.st_mtime_ns // 1000)
    except OverflowError:  # beyond the year 9999, or before the year 1
        modified_at = _LATEST if found.st_mtime_ns > 0 else _EARLIEST
    return Entry(path, found.st_size, modified_at, file_id=str(found.st_ino))
