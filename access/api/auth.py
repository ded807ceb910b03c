"""Logging in and out, registering, confirming an address, a new password."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth import authenticate, login, logout
from django.middleware.csrf import get_token
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.debug import sensitive_post_parameters
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers, status
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import AuthenticationFailed, ValidationError
from rest_framework.permissions import AllowAny, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from access import accounts, attempts, registration, tokens
from access.api.answers import Answering, refusals
from access.api.authentication import acting
from access.api.serializers import (
    AddressSerializer,
    CodeSerializer,
    LogInSerializer,
    NewPasswordSerializer,
    RefreshSerializer,
    RegistrationSerializer,
    TokenPairSerializer,
    UserSerializer,
)
from access.attempts import Purpose
from access.mails import Mail
from access.models import TokenFamily, User
from access.tasks import send_mail
from streamweave.lib.rest.schema import problems

TAGS = ["auth"]
SENT = OpenApiResponse(description="If there is reason to, a mail is on its way.")
LEFT = OpenApiResponse(description="Logged out.")


def given(kind: type[serializers.Serializer[Any]], request: Request) -> dict[str, Any]:
    """What the request says, checked."""
    serializer = kind(data=request.data)
    serializer.is_valid(raise_exception=True)
    return serializer.validated_data


class OpenView(Answering):
    """Anyone may ask, and who asks is not looked at: an Authorization header, even a bad one, makes no difference."""

    authentication_classes = ()
    permission_classes = (AllowAny,)


class AccountView(Answering):
    """For everybody who is logged in."""

    permission_classes = (IsAuthenticated,)


def logged_in(request: Request) -> User:
    """The user with the e-mail and password in the request. Raises ValidationError, TooManyAttemptsError."""
    told = given(LogInSerializer, request)
    user = authenticate(request._request, username=told["username"], password=told["password"])
    if not isinstance(user, User):
        raise ValidationError({"detail": "The e-mail or the password is wrong.", "code": "LOGIN_BAD_CREDENTIALS"})
    return user


@method_decorator(sensitive_post_parameters("password"), name="dispatch")
class RegisterView(OpenView):
    @extend_schema(
        operation_id="register",
        summary="Make oneself an account",
        request=RegistrationSerializer,
        responses={201: UserSerializer, **refusals(400, 403, 429, 503)},
        tags=TAGS,
    )
    def post(self, request: Request) -> Response:
        told = given(RegistrationSerializer, request)
        attempts.begin(Purpose.REGISTER, account=told["email"], request=request)
        user = registration.register(**told, ip=attempts.address_of(request))
        if settings.VERIFY_EMAIL and not user.is_verified:
            send_mail.delay(Mail.REGISTERED, user.email)
        return Response(UserSerializer(user).data, status.HTTP_201_CREATED)


@method_decorator(sensitive_post_parameters("password"), name="dispatch")
class JWTLogInView(OpenView):
    @extend_schema(
        operation_id="log_in",
        summary="Log in",
        description="Gives tokens and sets no session.",
        request={"application/x-www-form-urlencoded": LogInSerializer, "application/json": LogInSerializer},
        responses={200: TokenPairSerializer, **refusals(400, 429)},
        tags=TAGS,
    )
    def post(self, request: Request) -> Response:
        user = logged_in(request)
        User.objects.filter(pk=user.pk).note_log_in()
        return Response(_told(tokens.log_in(user)))


class JWTRefreshView(OpenView):
    @extend_schema(
        operation_id="refresh_tokens",
        summary="Get new tokens for a refresh token",
        description="A refresh token is good once. Shown again, it ends the log-in: somebody has stolen it.",
        request=RefreshSerializer,
        responses={200: TokenPairSerializer, 401: problems()[401], **refusals(400)},
        tags=TAGS,
    )
    def post(self, request: Request) -> Response:
        try:
            return Response(_told(tokens.refresh(given(RefreshSerializer, request)["refresh_token"])))
        except tokens.BadTokenError as error:
            raise AuthenticationFailed(str(error)) from None

    def get_authenticate_header(self, request: Request) -> str:
        return "Bearer"


class JWTLogOutView(AccountView):
    @extend_schema(
        operation_id="log_out",
        summary="Log out",
        description="Ends the log-in that the access token belongs to, with its refresh token.",
        request=None,
        responses={204: LEFT, 401: problems()[401], **refusals(400, 403)},
        tags=TAGS,
    )
    def post(self, request: Request) -> Response:
        if not isinstance(request.auth, TokenFamily):
            raise ValidationError({"detail": "Send the access token of the log-in that shall end."})
        tokens.log_out(request.auth, ip=attempts.address_of(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


class LogOutEverywhereView(AccountView):
    @extend_schema(
        operation_id="log_out_everywhere",
        summary="Log out everywhere",
        description="Ends every session, every log-in and every API token of the user at once.",
        request=None,
        responses={204: LEFT, 401: problems()[401], 403: refusals(403)[403]},
        tags=TAGS,
    )
    def post(self, request: Request) -> Response:
        accounts.log_out_everywhere(acting(request), ip=attempts.address_of(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


class ForgotPasswordView(OpenView):
    @extend_schema(
        operation_id="forgot_password",
        summary="Ask for a mail with a code for a new password",
        request=AddressSerializer,
        responses={202: SENT, **refusals(400, 429, 503)},
        tags=TAGS,
    )
    def post(self, request: Request) -> Response:
        return _mailed(Mail.RESET, request)


@method_decorator(sensitive_post_parameters("password"), name="dispatch")
class ResetPasswordView(OpenView):
    @extend_schema(
        operation_id="reset_password",
        summary="Set a new password with the code from a mail",
        description="Ends every log-in of the user.",
        request=NewPasswordSerializer,
        responses={200: UserSerializer, **refusals(400)},
        tags=TAGS,
    )
    def post(self, request: Request) -> Response:
        told = given(NewPasswordSerializer, request)
        user = registration.reset_password(told["token"], told["password"], ip=attempts.address_of(request))
        return Response(UserSerializer(user).data)


class RequestVerifyTokenView(OpenView):
    @extend_schema(
        operation_id="request_verify_token",
        summary="Ask for a mail with a code that confirms one's address",
        request=AddressSerializer,
        responses={202: SENT, **refusals(400, 429, 503)},
        tags=TAGS,
    )
    def post(self, request: Request) -> Response:
        return _mailed(Mail.VERIFY, request)


class VerifyView(OpenView):
    @extend_schema(
        operation_id="verify",
        summary="Confirm one's address with the code from a mail",
        request=CodeSerializer,
        responses={200: UserSerializer, **refusals(400)},
        tags=TAGS,
    )
    def post(self, request: Request) -> Response:
        told = given(CodeSerializer, request)
        return Response(UserSerializer(registration.verify(told["token"], ip=attempts.address_of(request))).data)


@method_decorator(sensitive_post_parameters("password"), name="dispatch")
@method_decorator(ensure_csrf_cookie, name="dispatch")
class CookieLogInView(OpenView):
    """The session is for browsers, so that its log-in asks for the CSRF token: nobody is logged in as somebody else by
    a page of a third."""

    @extend_schema(
        operation_id="get_csrf_cookie",
        summary="Get the cookie `csrftoken`",
        description="It is sent back in the header X-CSRFToken.",
        responses={204: OpenApiResponse(description="The cookie is set.")},
        tags=TAGS,
    )
    def get(self, request: Request) -> Response:
        get_token(request._request)
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(
        operation_id="log_in_with_cookie",
        summary="Log in with a session cookie",
        request={"application/x-www-form-urlencoded": LogInSerializer, "application/json": LogInSerializer},
        responses={204: OpenApiResponse(description="The cookie is set."), **refusals(400, 403, 429)},
        tags=TAGS,
    )
    def post(self, request: Request) -> Response:
        SessionAuthentication().enforce_csrf(request)
        login(request._request, logged_in(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


class CookieLogOutView(AccountView):
    @extend_schema(
        operation_id="log_out_of_session",
        summary="Log out of the session",
        request=None,
        responses={204: LEFT, 401: problems()[401], 403: refusals(403)[403]},
        tags=TAGS,
    )
    def post(self, request: Request) -> Response:
        logout(request._request)
        return Response(status=status.HTTP_204_NO_CONTENT)


def _told(pair: tokens.TokenPair) -> dict[str, Any]:
    told = {"access_token": pair.access, "token_type": "bearer", "refresh_token": pair.refresh}
    return dict(TokenPairSerializer(told).data)


def _mailed(mail: Mail, request: Request) -> Response:
    """The same answer, after the same work, whether or not somebody has the address."""
    email = given(AddressSerializer, request)["email"]
    attempts.begin(Purpose.MAIL, account=email, request=request)
    send_mail.delay(mail, email)
    return Response(status=status.HTTP_202_ACCEPTED)
