from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from streamweave.lib.env import Environment

DEFAULT_DATABASE = Path("/var/lib/streamweave/db.sqlite3")


def test_what_is_not_set_or_set_to_nothing_is_the_default():
    for env in Environment({}), Environment(dict.fromkeys("TFWNDSE", " ")):
        assert env.text("T", "x") == "x"
        assert env.flag("F", True) is True
        assert env.whole("W", 3) == 3
        assert env.names("N", "a,b") == ["a", "b"]
        assert env.networks("N") == []
        assert env.folder("D") is None
        assert env.secret("S") is None
        assert env.choice("E", "INFO", ["INFO"]) == "INFO"
        assert env.database("D", DEFAULT_DATABASE)["NAME"] == DEFAULT_DATABASE


def test_values_have_their_types():
    env = Environment(
        {"F": "Yes", "W": "40", "N": " a , b,", "C": "10.1.0.0/16,2001:db8::/32", "D": "/srv/x", "L": "debug"}
    )
    assert env.flag("F", False) is True
    assert env.whole("W", 1) == 40
    assert env.names("N", "") == ["a", "b"]
    assert env.networks("C") == [ip_network("10.1.0.0/16"), ip_network("2001:db8::/32")]
    assert env.folder("D") == Path("/srv/x")
    assert env.choice("L", "INFO", ["DEBUG", "INFO"]) == "DEBUG"


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("maybe", lambda env: env.flag("X", False)),
        ("-1", lambda env: env.whole("X", 3)),
        ("0", lambda env: env.whole("X", 3)),
        ("1.5", lambda env: env.whole("X", 3)),
        ("٣", lambda env: env.whole("X", 3)),
        ("10.0.0.1/8", lambda env: env.networks("X")),
        ("relative/path", lambda env: env.folder("X")),
        ("LOUD", lambda env: env.choice("X", "INFO", ["DEBUG", "INFO"])),
        ("b", lambda env: env.text("X", "a", check=lambda value: value == "a", rule="must be a")),
        ("mysql://h/db", lambda env: env.database("X", DEFAULT_DATABASE)),
        ("sqlite:///relative.sqlite3", lambda env: env.database("X", DEFAULT_DATABASE)),
        ("sqlite://host/abs.sqlite3", lambda env: env.database("X", DEFAULT_DATABASE)),
        ("sqlite://:memory:", lambda env: env.database("X", DEFAULT_DATABASE)),
        ("postgresql://host:5432", lambda env: env.database("X", DEFAULT_DATABASE)),
        ("postgresql://host:port/db", lambda env: env.database("X", DEFAULT_DATABASE)),
        ("smtp://", lambda env: env.email("X", Path("/mail"))),
        ("pigeon://host", lambda env: env.email("X", Path("/mail"))),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_name_with_an_example(value, read):
    with pytest.raises(ImproperlyConfigured) as refusal:
        read(Environment({"X": value}))
    assert "variable X " in str(refusal.value)
    assert "For example: X=" in str(refusal.value)


def test_a_refusal_does_not_show_the_value():
    with pytest.raises(ImproperlyConfigured) as refusal:
        Environment({"X": "mysql://u:hunter2@h/db"}).database("X", DEFAULT_DATABASE)
    assert "hunter2" not in str(refusal.value)


def test_a_database_url_is_taken_apart_and_decoded():
    url = "postgresql://us%40er:p%2Fw+%3A@db.example.org:5433/na%20me?sslmode=verify-full&connect_timeout=3"
    assert Environment({"X": url}).database("X", DEFAULT_DATABASE) == {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "na me",
        "USER": "us@er",
        "PASSWORD": "p/w+:",
        "HOST": "db.example.org",
        "PORT": 5433,
        "OPTIONS": {"sslmode": "verify-full", "connect_timeout": "3"},
    }


def test_an_sqlite_path_may_have_spaces_and_signs():
    env = Environment({"X": "sqlite:////srv/a b+c/%25/db.sqlite3"})
    assert env.database("X", DEFAULT_DATABASE)["NAME"] == Path("/srv/a b+c/%/db.sqlite3")
    odd = Path("/srv/100% #1?/db.sqlite3")
    assert Environment({}).database("X", odd)["NAME"] == odd


def test_mail_goes_into_files_unless_a_server_is_named():
    assert Environment({}).email("X", Path("/mail"))["EMAIL_FILE_PATH"] == "/mail"
    server = Environment({"X": "smtp+tls://u:p%40@mail.example.org"}).email("X", Path("/mail"))
    assert (server["EMAIL_HOST"], server["EMAIL_PORT"], server["EMAIL_USE_TLS"]) == ("mail.example.org", 587, True)
    assert server["EMAIL_HOST_PASSWORD"] == "p@"


def test_a_secret_may_stand_in_a_file(tmp_path):
    (tmp_path / "secret").write_text("from the file\n")
    assert Environment({"S_FILE": str(tmp_path / "secret")}).secret("S") == "from the file"


def test_a_secret_file_that_is_missing_empty_or_beside_a_value_is_refused(tmp_path):
    (tmp_path / "empty").touch()
    for values in (
        {"S_FILE": str(tmp_path / "missing")},
        {"S_FILE": str(tmp_path / "empty")},
        {"S_FILE": str(tmp_path / "empty"), "S": "value"},
    ):
        with pytest.raises(ImproperlyConfigured, match="S_FILE"):
            Environment(values).secret("S")
