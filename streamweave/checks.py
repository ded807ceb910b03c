"""What `manage.py check --deploy` looks at besides Django's own checks."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Warning

TEST_NAAN = "99999"


def check_ark_naan(**kwargs: Any) -> list[CheckMessage]:
    """Warns while ARKs are minted under the authority number that is reserved for tests."""
    if settings.ARK_NAAN != TEST_NAAN:
        return []
    return [
        Warning(
            f"ARK_NAAN is {TEST_NAAN}, reserved for tests: identifiers minted with it are not globally unique.",
            hint="Ask the ARK Alliance (arks.org) for your institution's number, which is free, and set ARK_NAAN.",
            id="streamweave.W001",
        )
    ]
