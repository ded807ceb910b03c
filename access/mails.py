"""The mails about accounts. The worker sends them, and it alone looks the address up: whoever asks for one learns
neither from the answer nor from its time whether somebody has that address."""

from __future__ import annotations

from collections.abc import Callable

from django.core.mail import send_mail
from django.db import models

from access import codes
from access.models import User
from access.policy import may_log_in


class Mail(models.TextChoices):
    RESET = "reset"
    VERIFY = "verify"
    REGISTERED = "registered"
    INVITE = "invite"


def send(mail: Mail, email: str) -> bool:
    """Sends this mail to this address, if there is reason to; whether it was. Raises OSError, SMTPException."""
    text = _invitation(email) if mail == Mail.INVITE else _to_user(mail, email)
    if text is None:
        return False
    subject, body = text
    send_mail(subject, body, None, [email])
    return True


def _invitation(email: str) -> tuple[str, str] | None:
    if User.objects.with_email(email).exists():
        return None
    return (
        "You are invited to StreamWeave",
        "You can register with this address within a week. Give this as the invitation:\n\n"
        f"{codes.invitation_code(email)}\n",
    )


def _to_user(mail: Mail, email: str) -> tuple[str, str] | None:
    user = User.objects.with_email(email).first()
    return _TEXTS[mail](user) if user is not None and may_log_in(user) else None


def _reset(user: User) -> tuple[str, str]:
    return (
        "A new password for StreamWeave",
        "Somebody, hopefully you, asked for a new password. This code is good for an hour:\n\n"
        f"{codes.reset_code(user)}\n\nIf it was not you, do nothing: your password stays as it is.\n",
    )


def _verify(user: User) -> tuple[str, str] | None:
    if user.is_verified:
        return None
    return (
        "Confirm your address for StreamWeave",
        f"This code, good for a day, confirms that the address is yours:\n\n{codes.verification_code(user)}\n",
    )


def _registered(user: User) -> tuple[str, str] | None:
    if not user.is_verified:
        return _verify(user)
    return (
        "You have an account on StreamWeave already",
        "Somebody, perhaps you, tried to register with this address, which has an account. Log in with it; if you have"
        " forgotten the password, ask for a new one.\n",
    )


_TEXTS: dict[Mail, Callable[[User], tuple[str, str] | None]] = {
    Mail.RESET: _reset,
    Mail.VERIFY: _verify,
    Mail.REGISTERED: _registered,
}
