"""What the worker does for accounts."""

from __future__ import annotations

from smtplib import SMTPException

from celery import shared_task

from access import mails
from access.mails import Mail


@shared_task(autoretry_for=(OSError, SMTPException), retry_backoff=30, max_retries=5)
def send_mail(mail: str, email: str) -> bool:
    """Sends a mail about an account, again within some minutes if the mail server does not take it."""
    return mails.send(Mail(mail), email)
