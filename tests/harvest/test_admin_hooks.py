"""The admin page of hooks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.admin import site
from django.contrib.auth import get_user_model
from django.test import Client, RequestFactory
from django.urls import reverse

from access.models import AuditEvent
from harvest.admin.hooks import HookConfigAdmin
from hooks.models import HookConfig
from tests.hooks.test_builtins import SEED_FILTER
from tests.hooks.test_webhooks import OTHER, SECRET

pytestmark = pytest.mark.django_db

LIST = "admin:hooks_hookconfig_changelist"


@pytest.fixture
def admin(client: Client) -> Client:
    client.force_login(get_user_model().objects.create_superuser(email="admin@example.com", password="x"))
    return client


@pytest.fixture
def webhook() -> HookConfig:
    return HookConfig.objects.create(
        name="LIMS",
        trigger="post_transfer",
        implementation="http_webhook",
        webhook_url="https://lims.example.org/hook",
        webhook_secret=SECRET,
        last_error="lims.example.org answered 500",
        last_run_at="2026-03-01T00:00:00Z",
    )


def form(**fields: Any) -> dict[str, Any]:
    return {
        "name": "Filter",
        "trigger": "pre_transfer",
        "implementation": "builtin",
        "priority": 0,
        "config": "",
        **fields,
    }


def change(hook: HookConfig) -> str:
    return reverse("admin:hooks_hookconfig_change", args=[hook.pk])


def test_a_hook_is_made_with_its_config_and_without_empty_texts(admin: Client) -> None:
    data = form(builtin_name="file_filter", config=json.dumps(SEED_FILTER), enabled="on")
    response = admin.post(reverse("admin:hooks_hookconfig_add"), data)
    assert response.status_code == 302, response.context["errors"]
    hook = HookConfig.objects.get()
    assert hook.config == SEED_FILTER
    assert (hook.description, hook.script_path, hook.webhook_url, hook.webhook_secret) == (None,) * 4


def test_an_empty_config_is_null(admin: Client) -> None:
    admin.post(reverse("admin:hooks_hookconfig_add"), form(builtin_name="file_filter"))
    assert HookConfig.objects.get().config is None


def test_what_is_wrong_stands_at_its_field(admin: Client) -> None:
    data = form(builtin_name="file_filter", config='{"min_size_bytes": -1}')
    response = admin.post(reverse("admin:hooks_hookconfig_add"), data)
    assert response.context["adminform"].form.errors["config"] == ["min_size_bytes: -1 is less than the minimum of 0"]
    response = admin.post(
        reverse("admin:hooks_hookconfig_add"), form(implementation="http_webhook", webhook_secret="x")
    )
    assert response.context["adminform"].form.errors.keys() == {"webhook_url"}
    data = form(implementation="http_webhook", webhook_url="https://x.example.org/", webhook_secret="x")
    response = admin.post(reverse("admin:hooks_hookconfig_add"), data)
    assert response.context["adminform"].form.errors.keys() == {"webhook_secret"}


def test_the_list_shows_and_finds_hooks_and_how_they_did(admin: Client, webhook: HookConfig) -> None:
    page = admin.get(reverse(LIST), {"q": "lims"}).content.decode()
    assert "https://lims.example.org/hook" in page
    assert "failed: lims.example.org answered 500" in page
    assert "LIMS" not in admin.get(reverse(LIST), {"q": "nothing"}).content.decode()


def test_the_secret_is_never_shown_and_kept_unless_a_new_one_is_entered(admin: Client, webhook: HookConfig) -> None:
    for page in (admin.get(change(webhook)), admin.get(reverse(LIST))):
        assert SECRET not in page.content.decode()
    data = form(name="LIMS 2", trigger="post_transfer", implementation="http_webhook", webhook_url=webhook.webhook_url)
    assert admin.post(change(webhook), data).status_code == 302
    webhook.refresh_from_db()
    assert (webhook.name, webhook.webhook_secret) == ("LIMS 2", SECRET)
    assert admin.post(change(webhook), {**data, "webhook_secret": OTHER}).status_code == 302
    webhook.refresh_from_db()
    assert webhook.webhook_secret == OTHER


def test_a_page_whose_secret_cannot_be_opened_still_opens(admin: Client, webhook: HookConfig, settings: Any) -> None:
    settings.ENCRYPTION_KEYS = ["A" * 43 + "="]
    assert admin.get(change(webhook)).status_code == 200
    data = form(trigger="post_transfer", implementation="http_webhook", webhook_url=webhook.webhook_url)
    assert admin.post(change(webhook), data).context["adminform"].form.errors.keys() == {"webhook_secret"}
    assert admin.post(change(webhook), {**data, "webhook_secret": OTHER}).status_code == 302


def test_what_a_config_may_hold_is_told_beside_it(admin: Client) -> None:
    page = admin.get(reverse("admin:hooks_hookconfig_add")).content.decode()
    for words in ("file_filter: pre_transfer", "min_size_bytes", "##$", "metadata_key", "sub_path"):
        assert words in page


def act(admin: Client, hook: HookConfig, action: str, query: str = "") -> None:
    data = {"action": action, "_selected_action": [str(hook.pk)]}
    assert admin.post(reverse(LIST) + query, data, follow=True).status_code == 200
    hook.refresh_from_db()


def test_deleting_keeps_the_row_and_it_can_be_restored(admin: Client, webhook: HookConfig) -> None:
    assert admin.post(reverse("admin:hooks_hookconfig_delete", args=[webhook.pk]), {"post": "yes"}).status_code == 403
    act(admin, webhook, "soft_delete")
    assert webhook.deleted_at
    assert "LIMS" not in admin.get(reverse(LIST)).content.decode()
    assert "LIMS" in admin.get(reverse(LIST), {"deleted": "yes"}).content.decode()
    act(admin, webhook, "restore", "?deleted=yes")
    assert webhook.deleted_at is None


def test_hooks_are_switched_on_and_off_in_numbers_with_an_event_for_each(admin: Client, webhook: HookConfig) -> None:
    act(admin, webhook, "disable")
    assert not webhook.enabled
    act(admin, webhook, "disable")
    act(admin, webhook, "enable")
    assert webhook.enabled
    act(admin, webhook, "soft_delete")
    events = AuditEvent.objects.order_by("at").values_list("action", "object_id", "detail__after__enabled")
    assert list(events) == [
        ("hookconfig.disabled", str(webhook.pk), False),
        ("hookconfig.enabled", str(webhook.pk), True),
        ("hookconfig.deleted", str(webhook.pk), None),
    ]


def test_a_new_secret_is_an_event_that_does_not_tell_it(admin: Client, webhook: HookConfig) -> None:
    data = form(name="LIMS", trigger="post_transfer", implementation="http_webhook", webhook_url=webhook.webhook_url)
    assert admin.post(change(webhook), {**data, "enabled": "on", "webhook_secret": OTHER}).status_code == 302
    (event,) = AuditEvent.objects.all()
    assert event.action == "hookconfig.changed"
    assert event.detail == {"before": {"webhook_secret": "****"}, "after": {"webhook_secret": "****"}}


@pytest.mark.parametrize("superuser", [True, False])
def test_only_a_superuser_says_which_script_is_run(rf: RequestFactory, superuser: bool) -> None:
    request = rf.get("/")
    request.user = get_user_model()(is_superuser=superuser)
    fixed = HookConfigAdmin(HookConfig, site).get_readonly_fields(request)
    assert ("script_path" in fixed) is not superuser
