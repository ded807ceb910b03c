"""The form with which administrators log in."""

from __future__ import annotations

from typing import Any

from django.contrib.admin.forms import AdminAuthenticationForm
from django.core.exceptions import ValidationError

from access.attempts import TooManyAttemptsError


class LogInForm(AdminAuthenticationForm):
    """Django's, which also says when somebody has tried too often."""

    def clean(self) -> dict[str, Any]:
        try:
            return super().clean()
        except TooManyAttemptsError as error:
            raise ValidationError(str(error)) from None
