"""Static files: compressed and named by content once `collectstatic` has run, plain before that."""

from __future__ import annotations

from whitenoise.storage import CompressedManifestStaticFilesStorage


class StaticFilesStorage(CompressedManifestStaticFilesStorage):
    """Where nothing was collected yet (development, tests), whitenoise serves the sources under their own names."""

    def stored_name(self, name: str) -> str:
        return super().stored_name(name) if self.hashed_files else name
