"""manage.py seed_demo"""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from harvest.demo import lab


class Command(BaseCommand):
    help = (
        "Makes the rows of the demonstration lab that are missing: people, groups, projects, instruments, storage "
        "locations, schedules and hooks. May be repeated; what is there already stays as it is. It starts no server: "
        "`manage.py demo` does. Exit status 0."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        lab.seed(None)
        self.stdout.write("The demonstration lab is there.")
        self.stdout.write(f"Administrator: {lab.ADMIN[0]} / {lab.ADMIN[1]}")
        self.stdout.write(f"Users: {', '.join(lab.USERS)}, all with {lab.USER_PASSWORD}")
