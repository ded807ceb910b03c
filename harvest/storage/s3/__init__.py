"""Files as objects in a bucket of any server that speaks the Amazon S3 API."""

from harvest.storage.s3.storage import S3Storage

__all__ = ["S3Storage"]
