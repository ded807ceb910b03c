"""Settings read from the environment: typed, and failing loudly.

Every reader takes the variable's name and a default, and gives a value of its type. A variable that is set to nothing
counts as not set, so that `NAME=` in a compose file means the default. What cannot be used raises
`ImproperlyConfigured` with the variable's name, the reason and an example; values are never shown, as they may be
secrets.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

TRUE = frozenset({"true", "yes", "on", "1"})
FALSE = frozenset({"false", "no", "off", "0"})
EMAIL_SCHEMES = {"smtp": {}, "smtp+tls": {"EMAIL_USE_TLS": True}, "smtp+ssl": {"EMAIL_USE_SSL": True}}


def refuse(name: str, why: str, example: str) -> NoReturn:
    """Raises `ImproperlyConfigured`, which names the variable, says why, and shows an example."""
    raise ImproperlyConfigured(f"The environment variable {name} {why}. For example: {name}={example}")


class Environment:
    """The variables of `values`, by default the process's own."""

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        self.values = os.environ if values is None else values

    def text(self, name: str, default: str, *, check: Callable[[str], bool] | None = None, rule: str = "") -> str:
        """A text. `check` says whether it may be used, `rule` in words what it must be."""
        value = self.values.get(name, "").strip() or default
        if check and not check(value):
            refuse(name, rule, default)
        return value

    def choice(self, name: str, default: str, choices: Sequence[str]) -> str:
        """One of `choices`, which are upper case; the variable may be written in any."""
        value = self.values.get(name, "").strip().upper() or default
        if value not in choices:
            refuse(name, f"must be one of {', '.join(choices)}", default)
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self.values.get(name, "").strip().lower()
        if value and value not in TRUE | FALSE:
            refuse(name, "must be true or false", str(default).lower())
        return value in TRUE if value else default

    def whole(self, name: str, default: int, *, least: int = 1) -> int:
        """A whole number that is not below `least`."""
        value = self.values.get(name, "").strip()
        if value and not (value.isascii() and value.isdigit() and int(value) >= least):
            refuse(name, f"must be a whole number of at least {least}", str(default))
        return int(value) if value else default

    def names(self, name: str, default: str) -> list[str]:
        """A list, separated by commas."""
        value = self.values.get(name, "").strip() or default
        return [item.strip() for item in value.split(",") if item.strip()]

    def networks(self, name: str, default: str = "") -> list[Network]:
        """A list of networks in CIDR notation (RFC 4632)."""
        try:
            return [ipaddress.ip_network(item) for item in self.names(name, default)]
        except ValueError:
            refuse(name, "must be networks in CIDR notation, separated by commas", "10.20.0.0/16,192.0.2.7/32")

    def folder(self, name: str) -> Path | None:
        """An absolute path of a folder, which need not exist yet; None if not given."""
        value = self.values.get(name, "").strip()
        if value and not Path(value).is_absolute():
            refuse(name, "must be an absolute path", "/var/lib/streamweave")
        return Path(value) if value else None

    def secret(self, name: str) -> str | None:
        """A text that may also stand in a file, which `NAME_FILE` names, as containers do it; None if not given."""
        value = self.values.get(name, "").strip()
        file = self.values.get(f"{name}_FILE", "").strip()
        if value and file:
            refuse(name, f"and {name}_FILE are both set: remove one of them", "...")
        if not file:
            return value or None
        try:
            value = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            refuse(f"{name}_FILE", f"names a file that cannot be read ({type(error).__name__})", "/run/secrets/name")
        if not value:
            refuse(f"{name}_FILE", "names an empty file", "/run/secrets/name")
        return value

    def database(self, name: str, default: Path) -> dict[str, Any]:
        """Django's settings of a database given as a URL: ENGINE, NAME and, for PostgreSQL, where it is.

        By default it is the SQLite file `default`. A PostgreSQL URL's parameters (`?sslmode=verify-full`) are handed to
        libpq. Percent-encoding (RFC 3986) is undone.
        """
        example = "postgresql://user:password@db.example.org:5432/streamweave"
        url = self._url(name, f"sqlite:///{quote(str(default))}", example)
        if url.scheme == "sqlite":
            path = unquote(url.path)[1:]
            if url.netloc or not Path(path).is_absolute():
                refuse(
                    name, "must name an SQLite file by its absolute path, after three slashes", f"sqlite:///{default}"
                )
            return {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(path)}
        if url.scheme not in {"postgresql", "postgres"}:
            refuse(name, "must begin with sqlite: or postgresql:", example)
        database = unquote(url.path)[1:]
        if not database:
            refuse(name, "does not name the database at its end", example)
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": database,
            "USER": unquote(url.username or ""),
            "PASSWORD": unquote(url.password or ""),
            "HOST": unquote(url.hostname or ""),
            "PORT": url.port or "",
            "OPTIONS": dict(parse_qsl(url.query)),
        }

    def email(self, name: str, folder: Path) -> dict[str, Any]:
        """Django's settings of outgoing mail given as a URL; by default mails are written into files in `folder`."""
        example = "smtp+tls://user:password@mail.example.org:587"
        url = self._url(name, "file:", example)
        if url.scheme == "file":
            path = unquote(url.path) or str(folder)
            return {"EMAIL_BACKEND": "django.core.mail.backends.filebased.EmailBackend", "EMAIL_FILE_PATH": path}
        if url.scheme == "console":
            return {"EMAIL_BACKEND": "django.core.mail.backends.console.EmailBackend"}
        if url.scheme not in EMAIL_SCHEMES or not url.hostname:
            refuse(name, "must be smtp:, smtp+tls: or smtp+ssl: with a host, or file: or console:", example)
        return {
            "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
            "EMAIL_HOST": url.hostname,
            "EMAIL_PORT": url.port or {"smtp+ssl": 465, "smtp+tls": 587}.get(url.scheme, 25),
            "EMAIL_HOST_USER": unquote(url.username or ""),
            "EMAIL_HOST_PASSWORD": unquote(url.password or ""),
            "EMAIL_TIMEOUT": 20,
            **EMAIL_SCHEMES[url.scheme],
        }

    def _url(self, name: str, default: str, example: str) -> SplitResult:
        try:
            url = urlsplit(self.secret(name) or default)
            url.port  # noqa: B018  (reading it checks it)
        except ValueError:
            refuse(name, "is not a URL", example)
        return url
