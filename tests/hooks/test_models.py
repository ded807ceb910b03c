from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction

from hooks.models import HookConfig
from tests.hooks.test_builtins import SEED_FILTER, SEED_RULE
from tests.hooks.test_webhooks import SECRET

pytestmark = pytest.mark.django_db

BUILTIN = {"implementation": "builtin", "builtin_name": "file_filter"}
WEBHOOK = {"implementation": "http_webhook", "webhook_url": "https://lims.example.org/", "webhook_secret": SECRET}


def hook(**fields: Any) -> HookConfig:
    return HookConfig(**{"name": "A hook", "trigger": "pre_transfer", **fields})


def errors(**fields: Any) -> dict[str, list[str]]:
    try:
        hook(**fields).full_clean()
    except ValidationError as error:
        return error.message_dict
    return {}


@pytest.mark.parametrize(
    "fields",
    [
        {**BUILTIN, "config": SEED_FILTER},
        {**BUILTIN, "config": None},
        {**WEBHOOK, "config": {"any": "thing"}},
        {**WEBHOOK, "webhook_secret": f"{SECRET} {SECRET}"},
        {
            **BUILTIN,
            "builtin_name": "metadata_enrichment",
            "trigger": "post_transfer",
            "config": {"rules": [SEED_RULE]},
        },
    ],
)
def test_a_good_hook_is_taken_and_its_config_given_back_exactly(fields: dict[str, Any]) -> None:
    one = hook(**fields)
    one.full_clean()
    one.save()
    assert HookConfig.objects.get().config == fields.get("config")


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"implementation": "builtin"}, "builtin_name", "Give it: the implementation is builtin."),
        ({**BUILTIN, "builtin_name": "x"}, "builtin_name", "“x” is no builtin"),
        ({**BUILTIN, "script_path": "x.py"}, "script_path", "Leave it empty"),
        ({**BUILTIN, "webhook_secret": SECRET}, "webhook_secret", "Leave it empty"),
        ({**BUILTIN, "trigger": "post_transfer"}, "trigger", "file_filter is for pre_transfer only."),
        ({**BUILTIN, "trigger": "sometimes"}, "trigger", "not a valid choice"),
        ({"implementation": "shell"}, "implementation", "not a valid choice"),
        ({**BUILTIN, "config": {"min_size_bytes": -1}}, "config", "min_size_bytes: -1 is less"),
        ({**WEBHOOK, "webhook_url": "ftp://x/"}, "webhook_url", "must begin with https://"),
        ({**WEBHOOK, "webhook_url": None}, "webhook_url", "Give it"),
        ({**WEBHOOK, "webhook_secret": None}, "webhook_secret", "needs a secret"),
        ({**WEBHOOK, "webhook_secret": "guess"}, "webhook_secret", "whsec_"),
        ({**WEBHOOK, "config": [1]}, "config", "not of type 'object'"),
        ({"implementation": "python_script", "script_path": "x.py"}, "script_path", "switched off"),
        ({**BUILTIN, "name": ""}, "name", "cannot be blank"),
    ],
)
def test_a_bad_hook_is_refused_at_the_field_that_is_wrong(
    fields: dict[str, Any], field: str, message: str, settings: Any
) -> None:
    settings.HOOK_SCRIPT_DIR = None
    assert message in errors(**fields)[field][0]


@pytest.mark.parametrize(
    "fields",
    [
        {**BUILTIN, "builtin_name": None},
        {**BUILTIN, "builtin_name": ""},
        {**BUILTIN, "script_path": "x.py"},
        {**WEBHOOK, "builtin_name": "file_filter"},
        {**BUILTIN, "implementation": "shell"},
        {**BUILTIN, "trigger": "sometimes"},
        {**BUILTIN, "name": ""},
    ],
)
def test_the_database_itself_refuses_what_makes_no_sense(fields: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        hook(**fields).save()


def test_the_secret_is_encrypted_in_the_database() -> None:
    hook(**WEBHOOK).save()
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM hooks_hookconfig")
        assert SECRET not in str(cursor.fetchall())
    assert HookConfig.objects.get().webhook_secret == SECRET


def test_a_deleted_hook_is_kept_and_can_be_restored() -> None:
    one = hook(**BUILTIN)
    one.save()
    one.soft_delete()
    assert not HookConfig.objects.alive().exists()
    HookConfig.objects.all().restore()
    assert HookConfig.objects.alive().get() == one
