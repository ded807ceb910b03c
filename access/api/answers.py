"""How exceptions of this app become answers, and how the OpenAPI description tells of those that have no log-in."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiResponse
from kombu.exceptions import OperationalError
from rest_framework.exceptions import PermissionDenied, Throttled
from rest_framework.exceptions import ValidationError as BadRequest
from rest_framework.response import Response
from rest_framework.views import APIView

from access.accounts import LockedOutError
from access.attempts import TooManyAttemptsError
from access.codes import BadCodeError
from access.members import CannotBeMemberError
from access.registration import RegistrationClosedError
from streamweave.lib.rest.errors import Conflict, Unavailable
from streamweave.lib.rest.schema import ProblemSerializer, problems

MEANINGS = {
    403: "It is closed, or the form's CSRF token is missing.",
    429: "Too many attempts; `Retry-After` says how many seconds to wait.",
    503: "The message broker is out of reach for now.",
}


class Answering(APIView):
    """A view whose domain exceptions are answered by their kind."""

    def handle_exception(self, exc: Exception) -> Response:
        return super().handle_exception(as_answer(exc))


def as_answer(error: Exception) -> Exception:
    match error:
        case TooManyAttemptsError():
            refused = Throttled(wait=error.wait_seconds)
            refused.detail = str(error)  # type: ignore[assignment]  # DRF's own text adds a second sentence
            return refused
        case RegistrationClosedError():
            return PermissionDenied(str(error))
        case BadCodeError():
            return BadRequest({"detail": str(error)})
        case LockedOutError() | CannotBeMemberError():
            return Conflict(str(error))
        case OperationalError():
            return Unavailable("The mail cannot be sent right now; try again later.")
    return error


def refusals(*statuses: int) -> dict[int, Any]:
    """The entries of `responses` of a view that anybody may ask."""
    known = problems(400)
    return {
        status: known[status] if status not in MEANINGS else OpenApiResponse(ProblemSerializer, MEANINGS[status])
        for status in statuses
    }
