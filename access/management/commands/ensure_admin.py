"""manage.py ensure_admin"""

from __future__ import annotations

from argparse import RawDescriptionHelpFormatter
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.core.validators import validate_email
from django.db import transaction

from access.audit import record
from access.models import User
from access.policy import is_admin
from streamweave.lib.env import Environment


class Command(BaseCommand):
    help = """Makes sure that there is an administrator who can log in.

Reads the environment variables ADMIN_EMAIL and ADMIN_PASSWORD (or ADMIN_PASSWORD_FILE, a file that holds the
password). A user with this address who is an administrator already is left as he is, his password too; so the command
can run at every start.

Exit status: 0 if the administrator exists now; 1, with the reason, if a variable is missing or unusable, or if
somebody has this address who is no administrator, is deactivated or is deleted: nothing is changed then."""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        return super().create_parser(prog_name, subcommand, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def handle(self, *args: Any, **options: Any) -> None:
        email, password = self._read()
        with transaction.atomic():
            user = User.objects.with_email(email).first()
            if user is not None:
                self._check(user)
                self.stdout.write(f"{user.email} is an administrator already; nothing was changed.")
                return
            user = User.objects.create_superuser(email, password)
            record("user.created", by=None, on=user, detail={"email": user.email, "role": user.role})
        self.stdout.write(self.style.SUCCESS(f"{user.email} is now an administrator."))

    def _read(self) -> tuple[str, str]:
        environment = Environment()
        email, password = environment.text("ADMIN_EMAIL", ""), environment.secret("ADMIN_PASSWORD")
        if not email or not password:
            raise CommandError("Set ADMIN_EMAIL and ADMIN_PASSWORD (or ADMIN_PASSWORD_FILE) in the environment.")
        try:
            validate_email(email)
        except ValidationError as error:
            raise CommandError(f"ADMIN_EMAIL is not an e-mail address: {' '.join(error.messages)}") from error
        try:
            validate_password(password, User(email=email))
        except ValidationError as error:
            raise CommandError(f"ADMIN_PASSWORD is not good enough: {' '.join(error.messages)}") from error
        return email, password

    def _check(self, user: User) -> None:
        if is_admin(user):
            return
        why = "is deleted" if user.deleted_at else "is deactivated" if not user.is_active else "is no administrator"
        raise CommandError(
            f"{user.email} exists but {why}. Change that in the admin pages, or set ADMIN_EMAIL to another address."
        )
