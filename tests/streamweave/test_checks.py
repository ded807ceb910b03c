from __future__ import annotations

from streamweave.checks import check_ark_naan


def test_the_number_reserved_for_tests_is_warned_about(settings):
    settings.ARK_NAAN = "99999"
    assert [warning.id for warning in check_ark_naan()] == ["streamweave.W001"]
    settings.ARK_NAAN = "12345"
    assert check_ark_naan() == []
