"""The storages that journeys end at, seen from behind: what lies there, and what an independent tool calls them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mypy_boto3_s3.client import S3Client

from harvest.demo.servers import SeaweedServer
from harvest.models import StorageLocation
from harvest.storage.base import RESERVED
from tests.conftest import S3_ACCESS_KEY, S3_SECRET_KEY, ShareFolder


class Destination(ABC):
    """A storage location whose content can be looked at without StreamWeave."""

    location: StorageLocation
    rclone_path: str
    """What rclone calls its base path, with the configuration of `rclone_config`."""

    def files(self) -> dict[str, bytes]:
        """What anybody sees there: everything but the reserved folder, by its path below the base path."""
        return {path: content for path, content in self.everything().items() if path.split("/")[0] != RESERVED}

    def reserved(self) -> dict[str, bytes]:
        """What lies in the reserved folder, by its path below that one."""
        start = f"{RESERVED}/"
        return {path.removeprefix(start): read for path, read in self.everything().items() if path.startswith(start)}

    @abstractmethod
    def everything(self) -> dict[str, bytes]:
        """All files below the base path."""

    @abstractmethod
    def traces(self) -> Mapping[str, object]:
        """What any write to anything below the base path would change."""


class FolderDestination(Destination):
    """A folder of this machine, stored to directly or by way of an SMB server."""

    def __init__(self, location: StorageLocation, path: Path, rclone_path: str) -> None:
        self.location, self.path, self.rclone_path = location, path, rclone_path

    def everything(self) -> dict[str, bytes]:
        found = (path for path in self.path.rglob("*") if path.is_file())
        return {path.relative_to(self.path).as_posix(): path.read_bytes() for path in found}

    def traces(self) -> Mapping[str, object]:
        found = {path.relative_to(self.path).as_posix(): path.stat() for path in [self.path, *self.path.rglob("*")]}
        return {path: (was.st_ino, was.st_size, was.st_mtime_ns) for path, was in found.items()}


class BucketDestination(Destination):
    """A prefix of a bucket."""

    def __init__(self, location: StorageLocation, client: S3Client, bucket: str) -> None:
        self.location, self.client, self.bucket = location, client, bucket
        self.rclone_path = f"s3:{bucket}/{location.base_path}"

    def _listed(self) -> list[Any]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return [item for page in pages for item in page.get("Contents", [])]

    def everything(self) -> dict[str, bytes]:
        found = {}
        for item in self._listed():
            answer = self.client.get_object(Bucket=self.bucket, Key=item["Key"])
            found[item["Key"].removeprefix(f"{self.location.base_path}/")] = answer["Body"].read()
        return found

    def traces(self) -> Mapping[str, object]:
        uploads = self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        traces: dict[str, object] = {item["Key"]: (item["ETag"], item["LastModified"]) for item in self._listed()}
        return traces | {f"upload {upload['UploadId']}": upload["Key"] for upload in uploads}


def posix_destination(path: Path, name: str = "Archive") -> Destination:
    path.mkdir(parents=True, exist_ok=True)
    location = StorageLocation.objects.create(name=name, type="posix", base_path=str(path))
    return FolderDestination(location, path, str(path))


def smb_destination(host: str, username: str, password: str, folder: ShareFolder) -> Destination:
    config = {"host": host, "share": folder.share, "domain": None, "username": username, "password": password}
    location = StorageLocation.objects.create(
        name="Archive share", type="cifs", base_path=folder.base_path, connection_config=config
    )
    return FolderDestination(location, folder.path, f"smb:{folder.share}{folder.base_path}")


def s3_destination(server: SeaweedServer, bucket: str) -> Destination:
    config = {
        "bucket": bucket,
        "region": server.region,
        "endpoint_url": server.endpoint_url,
        "access_key_id": S3_ACCESS_KEY,
        "secret_access_key": S3_SECRET_KEY,
    }
    location = StorageLocation.objects.create(name="Bucket", type="s3", base_path="lab", connection_config=config)
    return BucketDestination(location, server.client(), bucket)
