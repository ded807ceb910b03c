"""The settings as a whole, each time in a process of its own with an environment of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from streamweave.lib.keys import new_key

BASE_DIR = Path(__file__).parents[2]
POSTGRES = "postgresql://user:hunter2@db.example.org/streamweave"


def load(expression: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = f"import json; from streamweave import settings; print(json.dumps({expression}, default=str))"
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=BASE_DIR, env=kept | environment, capture_output=True, text=True, check=False
    )


def value(expression: str, **environment: str) -> object:
    done = load(expression, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_sqlite_file_alone_leads_to_all_the_rest(tmp_path):
    url = f"sqlite:///{tmp_path}/lab/db.sqlite3"
    seen = "[settings.DATA_DIR, settings.SECRET_KEY, settings.ENCRYPTION_KEYS, settings.CELERY_BROKER_URL]"
    first = value(seen, DATABASE_URL=url)
    assert first == value(seen, DATABASE_URL=url)
    assert first[0] == str(tmp_path / "lab")
    for name in "secret_key", "encryption_keys":
        assert (tmp_path / "lab" / name).stat().st_mode & 0o777 == 0o600
    options = value("settings.CELERY_BROKER_TRANSPORT_OPTIONS", DATABASE_URL=url)
    assert options["data_folder_in"] == str(tmp_path / "lab" / "broker" / "queue")


def test_a_data_folder_alone_holds_the_database_too(tmp_path):
    assert value("settings.DATABASES['default']['NAME']", STREAMWEAVE_DATA_DIR=str(tmp_path)) == str(
        tmp_path / "db.sqlite3"
    )


def test_postgresql_needs_both_keys_and_says_which_is_missing(tmp_path):
    environment = {"DATABASE_URL": POSTGRES, "STREAMWEAVE_DATA_DIR": str(tmp_path)}
    without = load("1", **environment)
    assert without.returncode != 0
    assert "The environment variable SECRET_KEY must be set, or SECRET_KEY_FILE" in without.stderr
    with_one = load("1", **environment, SECRET_KEY="x" * 50)
    assert "The environment variable STREAMWEAVE_ENCRYPTION_KEYS must be set" in with_one.stderr
    (tmp_path / "keys").write_text(f"{new_key()}\n{new_key()}\n")
    keys = {"SECRET_KEY": "x" * 50, "STREAMWEAVE_ENCRYPTION_KEYS_FILE": str(tmp_path / "keys")}
    assert value("len(settings.ENCRYPTION_KEYS)", **environment, **keys) == 2
    assert "hunter2" not in without.stderr + with_one.stderr


@pytest.mark.parametrize(
    "odd",
    [
        {"STREAMWEAVE_DEBUG": "perhaps"},
        {"STREAMWEAVE_ENCRYPTION_KEYS": "short"},
        {"STREAMWEAVE_ENCRYPTION_KEYS": ","},
        {"CELERY_BROKER_URL": "amqp://localhost"},
        {"ARK_NAAN": "1234"},
        {"ARK_SHOULDER": "fk"},
        {"ARK_SHOULDER": "fkfkf4"},  # the check zone would be too long
        {"HOOK_SCRIPT_DIR": "hooks"},
        {"WEBHOOK_ALLOW_PRIVATE": "10.0.0.1/8"},
        {"LEASE_SECONDS": "0"},
        {"TASK_SECONDS": "5"},
        {"LOG_LEVEL": "chatty"},
        {"EMAIL_URL": "pigeon://loft"},
    ],
    ids=lambda odd: "=".join(*odd.items()),
)
def test_an_odd_value_stops_the_start_and_is_named(tmp_path, odd):
    done = load("1", STREAMWEAVE_DATA_DIR=str(tmp_path), **odd)
    assert done.returncode != 0
    name = next(iter(odd))
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"django.core.exceptions.ImproperlyConfigured: The environment variable {name} ")
    assert f"For example: {name}=" in last


def test_cookies_are_secure_where_https_is(tmp_path):
    seen = "[settings.SESSION_COOKIE_SECURE, settings.CSRF_COOKIE_SECURE, settings.SECURE_SSL_REDIRECT]"
    assert value(seen, STREAMWEAVE_DATA_DIR=str(tmp_path)) == [False] * 3
    assert value(seen, STREAMWEAVE_DATA_DIR=str(tmp_path), STREAMWEAVE_HTTPS="true") == [True] * 3


def test_nothing_is_shown_in_full_unless_asked_for(tmp_path):
    assert value("settings.DEBUG", STREAMWEAVE_DATA_DIR=str(tmp_path)) is False


def test_a_silent_file_server_is_given_up_before_the_lease_of_a_whole_batch(tmp_path):
    seen = "__import__('os').environ['SMB_EXPERIMENTAL_TRANSPORT_RECEIVE_TIMEOUT']"
    assert value(seen, STREAMWEAVE_DATA_DIR=str(tmp_path)) == "30"
    given = {"SMB_EXPERIMENTAL_TRANSPORT_RECEIVE_TIMEOUT": "5"}
    assert value(seen, STREAMWEAVE_DATA_DIR=str(tmp_path), **given) == "5"


def test_every_variable_is_documented_and_every_documented_one_is_read():
    settings = (BASE_DIR / "streamweave" / "settings.py").read_text()
    read = set(re.findall(r'(?:env\.\w+|_key)\(\s*"([A-Z_]+)"', settings))
    documented = set(re.findall(r"^\| `([A-Z_]+)`", (BASE_DIR / "docs" / "configuration.md").read_text(), re.MULTILINE))
    assert documented == read | {"SMB_EXPERIMENTAL_TRANSPORT_RECEIVE_TIMEOUT"}
