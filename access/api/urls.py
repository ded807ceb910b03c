"""The routes of this app's REST API."""

from __future__ import annotations

from typing import Any

from django.urls import URLPattern, URLResolver, path

from access.api import audit, auth, containers, instrument_grants, instrument_requests, me, users

ALL: Any = {"get": "list", "post": "create"}
ONE: Any = {"get": "retrieve", "patch": "partial_update", "delete": "destroy"}
MEMBERS: Any = {"get": "members", "post": "add_member"}
CONTAINERS = {"api/groups": containers.GroupViewSet, "api/projects": containers.ProjectViewSet}

urlpatterns: list[URLPattern | URLResolver] = [
    path("auth/register", auth.RegisterView.as_view()),
    path("auth/jwt/login", auth.JWTLogInView.as_view()),
    path("auth/jwt/refresh", auth.JWTRefreshView.as_view()),
    path("auth/jwt/logout", auth.JWTLogOutView.as_view()),
    path("auth/logout-everywhere", auth.LogOutEverywhereView.as_view()),
    path("auth/forgot-password", auth.ForgotPasswordView.as_view()),
    path("auth/reset-password", auth.ResetPasswordView.as_view()),
    path("auth/request-verify-token", auth.RequestVerifyTokenView.as_view()),
    path("auth/verify", auth.VerifyView.as_view()),
    path("auth/cookie/login", auth.CookieLogInView.as_view()),
    path("auth/cookie/logout", auth.CookieLogOutView.as_view()),
    path("users/me", me.UsersMeView.as_view()),
    path("api/me", me.MeView.as_view()),
    path("api/tokens", me.ApiTokensView.as_view()),
    path("api/tokens/<str:pk>", me.ApiTokenView.as_view()),
    path("api/admin/users", users.UserViewSet.as_view({"get": "list"})),
    path("api/admin/users/<str:pk>", users.UserViewSet.as_view(ONE)),
    *(
        path(f"api/admin/users/<str:pk>/{action}", users.UserViewSet.as_view({method: action}))
        for method, action in (
            ("post", "restore"),
            ("post", "deactivate"),
            ("post", "activate"),
            ("get", "groups"),
            ("get", "projects"),
        )
    ),
    path("api/admin/invitations", users.UserViewSet.as_view({"post": "invite"})),
    *(path(prefix, view.as_view(ALL)) for prefix, view in CONTAINERS.items()),
    *(path(f"{prefix}/<str:pk>", view.as_view(ONE)) for prefix, view in CONTAINERS.items()),
    *(path(f"{prefix}/<str:pk>/restore", view.as_view({"post": "restore"})) for prefix, view in CONTAINERS.items()),
    *(path(f"{prefix}/<str:pk>/members", view.as_view(MEMBERS)) for prefix, view in CONTAINERS.items()),
    *(
        path(f"{prefix}/<str:pk>/members/<str:member_id>", view.as_view({"delete": "remove_member"}))
        for prefix, view in CONTAINERS.items()
    ),
    path("api/instruments/<str:pk>/access", instrument_grants.InstrumentGrantsView.as_view()),
    path("api/instruments/<str:pk>/access/<str:grant_id>", instrument_grants.InstrumentGrantView.as_view()),
    path("api/audit", audit.AuditEventList.as_view()),
    path("api/instrument-requests", instrument_requests.InstrumentRequestList.as_view()),
    path("api/instrument-requests/<str:pk>", instrument_requests.InstrumentRequestDetail.as_view()),
]
