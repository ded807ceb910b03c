"""Making oneself an account, confirming its address, and getting in again without the password.

Registration is open, restricted to domains, by invitation, or off (the setting REGISTRATION). Where addresses have to
be confirmed (VERIFY_EMAIL), an address that is taken already is answered like a new one, and its owner is told by mail,
so that nobody learns here who has an account. Where a new user may log in at once, that cannot be hidden.
"""

from __future__ import annotations

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from access import codes
from access.accounts import check_password
from access.audit import changing, record
from access.codes import BadCodeError
from access.models import User


class RegistrationClosedError(Exception):
    """Nobody can make himself an account here."""

    def __init__(self) -> None:
        super().__init__("Registration is closed here. Ask an administrator for an invitation.")


def register(*, email: str, password: str, invitation: str | None = None, ip: str | None = None) -> User:
    """A new user. Where addresses are confirmed: one who is only shown and not kept, if the address is taken.

    Raises RegistrationClosedError, or ValidationError with the field.
    """
    user = User(email=User.objects.normalize_email(email))
    user.is_verified = _came_by_mail(user.email, invitation)
    check_password(password, user)
    user.set_password(password)
    try:
        with transaction.atomic():
            if User.objects.with_email(user.email).exists():
                raise IntegrityError
            user.save(force_insert=True)
            record("user.registered", by=user, on=user, detail={"email": user.email, "role": user.role}, ip=ip)
    except IntegrityError:
        if user.is_verified or not settings.VERIFY_EMAIL:
            raise ValidationError({"email": "Another user already has this address. Log in instead."}) from None
        user.is_superuser = False  # the database would have worked it out
    return user


def invite(email: str, *, by: User, ip: str | None = None) -> str:
    """A code with which this address may register within a week.

    Raises ValidationError if somebody has the address.
    """
    email = User.objects.normalize_email(email)
    if User.objects.with_email(email).exists():
        raise ValidationError({"email": "Another user already has this address."})
    record("user.invited", by=by, on=User, detail={"email": email}, ip=ip)
    return codes.invitation_code(email)


def reset_password(code: str, password: str, *, ip: str | None = None) -> User:
    """Sets the password of the user to whom the code was sent, and ends all his log-ins.

    Raises BadCodeError, or ValidationError with the field.
    """
    with transaction.atomic():
        user = codes.user_to_reset(code)
        check_password(password, user)
        with changing("user.password_reset", by=user, on=user, ip=ip):
            user.set_password(password)
            user.save(update_fields=["password"])
    return user


def verify(code: str, *, ip: str | None = None) -> User:
    """Confirms the address to which the code was sent. Raises BadCodeError."""
    with transaction.atomic():
        user = codes.user_to_verify(code)
        with changing("user.verified", by=user, on=user, ip=ip):
            user.is_verified = True
            user.save(update_fields=["is_verified"])
    return user


def _came_by_mail(email: str, invitation: str | None) -> bool:
    """Whether the address is confirmed already, by an invitation that was sent to it.

    Raises RegistrationClosedError, or ValidationError if one with this address may not register.
    """
    if settings.REGISTRATION == "OFF":
        raise RegistrationClosedError
    if invitation:
        try:
            invited = codes.invited_email(invitation)
        except BadCodeError as error:
            raise ValidationError({"invitation": str(error)}) from None
        if invited.lower() != email.lower():
            raise ValidationError({"invitation": "The invitation is for another address. Register with that one."})
        return True
    if settings.REGISTRATION == "INVITE":
        raise ValidationError({"invitation": "Registration is by invitation. Ask an administrator for one."})
    if settings.REGISTRATION == "DOMAIN" and email.rpartition("@")[2].lower() not in settings.REGISTRATION_DOMAINS:
        allowed = ", ".join(settings.REGISTRATION_DOMAINS)
        raise ValidationError({"email": f"Registration is for addresses in {allowed}."})
    return False
