from __future__ import annotations

import copy

import pytest
from django.core.exceptions import FieldError
from django.db import connection

from harvest.models import ServiceAccount
from streamweave.lib.keys import new_key
from streamweave.lib.secrets import EncryptedJSONField, Sealed, SecretError, decrypt, encrypt

OLD, NEW = new_key(), new_key()


@pytest.mark.parametrize("text", ["", "hunter2", "pä$$ wörd\n\x00", "x" * 100_000])
def test_what_was_sealed_is_opened(text):
    sealed = encrypt(text, [NEW])
    assert decrypt(sealed, [NEW]) == text
    assert text == "" or text not in sealed
    assert sealed != encrypt(text, [NEW])


def test_the_first_key_seals_and_the_others_still_open():
    old = encrypt("secret", [OLD])
    assert decrypt(old, [NEW, OLD]) == "secret"
    with pytest.raises(SecretError):
        decrypt(encrypt("secret", [NEW, OLD]), [OLD])


def test_a_missing_key_is_named_and_nothing_is_given_back():
    sealed = encrypt("secret", [OLD])
    with pytest.raises(SecretError, match=f"the key {sealed.split(':')[1]}, which is not among"):
        decrypt(sealed, [NEW])


def test_every_change_to_a_sealed_text_is_noticed():
    sealed = encrypt("secret", [NEW])
    for position in range(len(sealed.rstrip("=")) - 1):  # the last character has bits that base64 does not use
        changed = sealed[:position] + ("A" if sealed[position] != "A" else "B") + sealed[position + 1 :]
        with pytest.raises(SecretError):
            decrypt(changed, [NEW])


@pytest.mark.parametrize("text", ["", "secret", "v1:", "v1::", "v2:00000000:x", "v1:00000000"])
def test_what_is_no_sealed_text_is_refused(text):
    with pytest.raises(SecretError):
        decrypt(text, [NEW])


@pytest.fixture
def account(db, settings):
    settings.ENCRYPTION_KEYS = [NEW]
    return ServiceAccount.objects.create(name="reader", username="svc", password="hunter2")


def stored(account):
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT password FROM {ServiceAccount._meta.db_table}")
        return cursor.fetchone()[0]


def test_the_database_has_only_the_sealed_text(account):
    assert stored(account).startswith("v1:")
    assert "hunter2" not in stored(account)
    assert ServiceAccount.objects.get().password == "hunter2"
    assert ServiceAccount.objects.defer("password").get().password == "hunter2"


def test_a_row_whose_key_is_lost_can_be_listed_and_saved_but_its_secret_not_read(account, settings):
    before = stored(account)
    settings.ENCRYPTION_KEYS = [OLD]
    row = ServiceAccount.objects.get()
    row.name = "renamed"
    row.save()
    assert stored(account) == before
    with pytest.raises(SecretError):
        _ = row.password
    with pytest.raises(SecretError):
        _ = copy.deepcopy(row).password


def test_saving_without_having_read_the_secret_leaves_it_as_it_is(account):
    before = stored(account)
    ServiceAccount.objects.get().save()
    assert stored(account) == before


def test_a_query_for_values_shows_the_mask_only(account):
    (value,) = ServiceAccount.objects.values_list("password", flat=True)
    assert isinstance(value, Sealed)
    assert (str(value), repr(value)) == ("****", "****")


def test_nobody_can_search_for_a_secret(account):
    with pytest.raises(FieldError):
        ServiceAccount.objects.filter(password="hunter2")
    assert not ServiceAccount.objects.filter(password__isnull=True).exists()


def test_json_is_sealed_whole(settings):
    settings.ENCRYPTION_KEYS = [NEW]
    field = EncryptedJSONField()
    for value in ({"key": ["a", 1, None]}, [], "text", 0, False):
        token = field.get_prep_value(value)
        assert token.startswith("v1:")
        assert field.opened(field.from_db_value(token, None, connection)) == value
    assert field.get_prep_value(None) is None
