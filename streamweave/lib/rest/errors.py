"""Exceptions as answers: `{"detail": …}`, or the field errors."""

from __future__ import annotations

import logging
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import InterfaceError, OperationalError
from django.db.models import ProtectedError, RestrictedError
from rest_framework import status
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.response import Response
from rest_framework.views import exception_handler as drf_exception_handler

log = logging.getLogger(__name__)


class Conflict(APIException):
    """The request is well formed, but what is there forbids it."""

    status_code = status.HTTP_409_CONFLICT
    default_detail = "That is not possible as things stand."
    default_code = "conflict"


class Unavailable(APIException):
    """Something we need to answer is out of reach for now."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_detail = "That cannot be answered right now; try again later."
    default_code = "unavailable"


def exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """The one place where exceptions become answers. What it does not know is a 500, logged with its traceback."""
    if isinstance(error, DjangoValidationError):
        error = as_field_errors(error)
    elif isinstance(error, (ProtectedError, RestrictedError)):
        error = Conflict("Other things still refer to it; remove or change those first.")
    elif isinstance(error, (OperationalError, InterfaceError)):
        log.error("the database did not answer a request", exc_info=error)
        error = Unavailable("The database cannot be reached right now, and nothing was changed. Try again later.")
    return drf_exception_handler(error, context)


def as_field_errors(error: DjangoValidationError) -> ValidationError:
    """A model's ValidationError with its fields; what concerns no single field is under `detail`."""
    if not hasattr(error, "error_dict"):
        return ValidationError({"detail": error.messages})
    told = {("detail" if field == NON_FIELD_ERRORS else field): text for field, text in error.message_dict.items()}
    return ValidationError(told)
