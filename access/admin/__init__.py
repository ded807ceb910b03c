"""Admin pages of people and rights. What they are built from, in `base`, serves the other apps' pages as well."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.models import Group as AuthGroup

from access.admin import audit_log, grants, log_in, people, requests

__all__ = ["audit_log", "grants", "people", "requests"]

admin.site.login_form = log_in.LogInForm
# Its groups are the effective members that follow from the memberships; nobody edits them by hand.
admin.site.unregister(AuthGroup)
