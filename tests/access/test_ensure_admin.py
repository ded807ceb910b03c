"""manage.py ensure_admin"""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from django.contrib.auth import authenticate
from django.core.management import CommandError, call_command

from access.models import AuditEvent, User

pytestmark = pytest.mark.django_db
PASSWORD = "correct-horse-9"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("ADMIN_EMAIL", "Root@Example.org")
    monkeypatch.setenv("ADMIN_PASSWORD", PASSWORD)
    monkeypatch.delenv("ADMIN_PASSWORD_FILE", raising=False)
    return monkeypatch


def said() -> str:
    out = StringIO()
    call_command("ensure_admin", stdout=out)
    return out.getvalue()


def test_it_makes_an_administrator_who_can_log_in() -> None:
    assert "Root@example.org is now an administrator" in said()
    user = authenticate(username="root@example.org", password=PASSWORD)
    assert isinstance(user, User)
    assert user.is_superuser
    assert AuditEvent.objects.get().action == "user.created"


def test_a_second_time_it_leaves_him_as_he_is(environment: pytest.MonkeyPatch) -> None:
    said()
    environment.setenv("ADMIN_PASSWORD", "another-horse-7")
    assert "nothing was changed" in said()
    assert authenticate(username="root@example.org", password=PASSWORD) is not None
    assert User.objects.count() == 1


def test_the_password_may_stand_in_a_file(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    environment.delenv("ADMIN_PASSWORD")
    environment.setenv("ADMIN_PASSWORD_FILE", str(tmp_path / "password"))
    said()
    assert authenticate(username="root@example.org", password=PASSWORD) is not None


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("ADMIN_EMAIL", "", "Set ADMIN_EMAIL"),
        ("ADMIN_EMAIL", "root", "not an e-mail address"),
        ("ADMIN_PASSWORD", "", "Set ADMIN_EMAIL and ADMIN_PASSWORD"),
        ("ADMIN_PASSWORD", "123", "ADMIN_PASSWORD is not good enough"),
    ],
)
def test_what_is_missing_or_unusable_is_named(environment: pytest.MonkeyPatch, name: str, value: str, why: str) -> None:
    environment.setenv(name, value)
    with pytest.raises(CommandError, match=why):
        said()
    assert not User.objects.exists()


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"role": "user"}, "is no administrator"),
        ({"role": "admin", "is_active": False}, "is deactivated"),
        ({"role": "admin", "deleted_at": "2026-01-01T00:00Z"}, "is deleted"),
    ],
)
def test_who_is_no_administrator_is_not_made_one(fields: dict[str, object], why: str) -> None:
    User.objects.create_user("root@example.org", None, **fields)
    with pytest.raises(CommandError, match=why):
        said()
    assert not User.objects.filter(is_superuser=True).exists()
