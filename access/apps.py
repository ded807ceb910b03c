from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig


class AccessConfig(AppConfig):
    name = "access"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "People and rights"

    def ready(self) -> None:
        import_module("access.api.description")  # it makes itself known to drf-spectacular
