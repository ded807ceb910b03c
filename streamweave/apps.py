"""The project as an app of its own: its commands and its checks."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks

from streamweave.checks import check_ark_naan


class StreamWeaveConfig(AppConfig):
    name = "streamweave"
    verbose_name = "StreamWeave"

    def ready(self) -> None:
        checks.register(check_ark_naan, deploy=True)
