"""Instruments, storage locations and service accounts over the API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from access.models import AuditEvent, User
from harvest.demo.servers import SeaweedServer
from harvest.models import HarvestRun, HarvestSchedule, Instrument, ServiceAccount, StorageLocation
from tests.conftest import S3_ACCESS_KEY, S3_SECRET_KEY

pytestmark = pytest.mark.django_db

INSTRUMENT_KEYS = [
    *("id", "name", "description", "location", "pid", "cifs_host", "cifs_share", "cifs_base_path"),
    *("service_account_id", "transfer_adapter", "transfer_config", "enabled", "created_at", "updated_at", "deleted_at"),
]
STORAGE_KEYS = [
    *("id", "name", "type", "connection_config", "base_path", "enabled", "created_at", "updated_at", "deleted_at"),
]
ANYWHERE = ("/api/instruments", "/api/storage-locations", "/api/service-accounts", "/api/schedules", "/api/hooks")


def an_instrument(**changed: Any) -> dict[str, Any]:
    return {"name": "TEM", "cifs_host": "tem.example.org", "cifs_share": "tem", **changed}


def an_s3(port: int = 9000, **changed: Any) -> dict[str, Any]:
    config = {
        "bucket": "instruments",
        "endpoint_url": f"http://127.0.0.1:{port}",
        "access_key_id": S3_ACCESS_KEY,
        "secret_access_key": S3_SECRET_KEY,
    }
    return {"name": "S3", "type": "s3", "base_path": "instruments", "connection_config": config, **changed}


# ------------------------------------------------------------------------------------------------------ the contract


def test_an_instrument_is_told_with_the_keys_of_the_original_first_and_with_nulls(admin: APIClient) -> None:
    made = admin.post("/api/instruments", an_instrument(), format="json")
    assert made.status_code == 201, made.content
    told = made.json()
    assert list(told)[: len(INSTRUMENT_KEYS)] == INSTRUMENT_KEYS
    nulls = ("description", "location", "pid", "service_account_id", "transfer_config", "deleted_at")
    assert all(told[key] is None for key in nulls)
    assert told["cifs_base_path"] == "/"
    assert told["enabled"] is True
    assert told["created_at"].endswith("Z")
    assert told["updated_at"].endswith("Z")
    assert admin.get(f"/api/instruments/{told['id']}").json() == told
    assert admin.get("/api/instruments").json() == [told]


def test_lists_are_in_order_of_creation_and_cost_one_query_whatever_their_length(
    admin: APIClient, account: ServiceAccount
) -> None:
    for number in (3, 1, 2):
        admin.post(
            "/api/instruments", an_instrument(name=f"I{number}", service_account_id=str(account.pk)), format="json"
        )
    with CaptureQueriesContext(
        connection,
    ) as queries:
        told = admin.get("/api/instruments").json()
    assert [one["name"] for one in told] == ["I3", "I1", "I2"]
    assert len(queries) == 1


def test_secrets_of_a_storage_are_masked_and_kept_by_their_mask(admin: APIClient) -> None:
    made = admin.post("/api/storage-locations", an_s3(), format="json")
    assert made.status_code == 201, made.content
    told = made.json()
    assert list(told)[: len(STORAGE_KEYS)] == STORAGE_KEYS
    assert told["connection_config"]["secret_access_key"] == "****"
    url = f"/api/storage-locations/{told['id']}"
    config = {**told["connection_config"], "region": "eu-central-2"}
    changed = admin.patch(url, {"connection_config": config}, format="json")
    assert changed.status_code == 200, changed.content
    assert changed.json()["connection_config"] == config
    location = StorageLocation.objects.get()
    assert location.config_in_clear["secret_access_key"] == S3_SECRET_KEY
    for event in AuditEvent.objects.filter(object_id=told["id"]):
        assert S3_SECRET_KEY not in json.dumps(event.detail)
    fresh = admin.patch(url, {"connection_config": {**config, "secret_access_key": "another1"}}, format="json")
    assert "another1" not in fresh.content.decode()
    assert StorageLocation.objects.get().config_in_clear["secret_access_key"] == "another1"


def test_a_posix_location_has_null_for_its_config(admin: APIClient, tmp_path: Path) -> None:
    data = {"name": "P", "type": "posix", "base_path": str(tmp_path), "connection_config": None}
    assert admin.post("/api/storage-locations", data, format="json").json()["connection_config"] is None


def test_a_password_is_written_and_never_told(admin: APIClient) -> None:
    data = {"name": "a", "username": "svc", "password": " pass word "}
    made = admin.post("/api/service-accounts", data, format="json")
    assert list(made.json()) == ["id", "name", "domain", "username", "created_at", "updated_at", "deleted_at"]
    assert made.json()["domain"] is None
    account = ServiceAccount.objects.get()
    assert account.password == " pass word "
    url = f"/api/service-accounts/{account.pk}"
    assert admin.patch(url, {"username": "other", "password": "****"}, format="json").status_code == 200
    account = ServiceAccount.objects.get()
    assert (account.username, account.password) == ("other", " pass word ")
    changed = admin.patch(url, {"password": "new"}, format="json")
    assert "new" not in changed.content.decode()
    assert ServiceAccount.objects.get().password == "new"
    event = AuditEvent.objects.filter(action="serviceaccount.changed").latest("at")
    assert event.detail == {"before": {"password": "****"}, "after": {"password": "****"}}


def test_an_account_whose_key_was_lost_is_told_and_changed_and_takes_a_new_password(
    admin: APIClient, account: ServiceAccount, settings: Any
) -> None:
    settings.ENCRYPTION_KEYS = ["MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="]
    url = f"/api/service-accounts/{account.pk}"
    assert admin.get(url).status_code == 200
    assert admin.patch(url, {"name": "renamed"}, format="json").status_code == 200
    assert admin.patch(url, {"password": "again"}, format="json").status_code == 200
    assert ServiceAccount.objects.get().password == "again"


# ------------------------------------------------------------------------------------------------- deleted, restored


def test_what_is_deleted_is_gone_unless_it_is_asked_for_and_can_be_restored(
    admin: APIClient, instrument: Instrument
) -> None:
    url = f"/api/instruments/{instrument.pk}"
    assert admin.delete(url).status_code == 204
    assert admin.get("/api/instruments").json() == []
    assert admin.get(url).status_code == admin.patch(url, {}, format="json").status_code == 404
    assert admin.delete(url).status_code == 404
    (listed,) = admin.get("/api/instruments?include_deleted=true").json()
    assert listed["deleted_at"] is not None
    assert admin.get(f"{url}?include_deleted=true").json() == listed
    restored = admin.post(f"{url}/restore")
    assert restored.status_code == 200
    assert restored.json()["deleted_at"] is None
    assert admin.post(f"{url}/restore").status_code == 200
    actions = AuditEvent.objects.order_by("at").values_list("action", flat=True)
    assert list(actions) == ["instrument.deleted", "instrument.restored"]


def test_a_name_is_free_again_when_its_row_is_deleted_and_then_stands_against_restoring(
    admin: APIClient, instrument: Instrument
) -> None:
    taken = admin.post("/api/instruments", an_instrument(name=instrument.name), format="json")
    assert taken.status_code == 400
    assert taken.json() == {"name": ["There is another instrument called “NMR”."]}
    admin.delete(f"/api/instruments/{instrument.pk}")
    other = admin.post("/api/instruments", an_instrument(name=instrument.name), format="json")
    assert other.status_code == 201
    assert other.json()["storage_folder"] != instrument.storage_folder
    refused = admin.post(f"/api/instruments/{instrument.pk}/restore")
    assert refused.status_code == 409
    assert "NMR" in refused.json()["detail"]
    renamed = admin.patch(f"/api/instruments/{other.json()['id']}", {"name": "NMR 2"}, format="json")
    assert renamed.status_code == 200
    assert admin.post(f"/api/instruments/{instrument.pk}/restore").status_code == 200
    taken = admin.patch(f"/api/instruments/{instrument.pk}", {"name": "NMR 2"}, format="json")
    assert taken.status_code == 400
    assert "name" in taken.json()


def test_deleting_an_instrument_or_a_storage_stops_its_schedules(
    admin: APIClient, schedule: HarvestSchedule, archive: StorageLocation
) -> None:
    for url in (f"/api/instruments/{schedule.instrument_id}", f"/api/storage-locations/{archive.pk}"):
        assert admin.delete(url).status_code == 204
        assert not HarvestSchedule.objects.active().exists()
        refused = admin.post(f"/api/schedules/{schedule.pk}/trigger")
        assert refused.status_code == 409
        assert "is deleted" in refused.json()["detail"]
        admin.post(f"{url}/restore")
        assert HarvestSchedule.objects.active().exists()


def test_an_account_that_an_instrument_logs_in_with_is_not_deleted(
    admin: APIClient, account: ServiceAccount, instrument: Instrument
) -> None:
    refused = admin.delete(f"/api/service-accounts/{account.pk}")
    assert refused.status_code == 409
    assert "NMR" in refused.json()["detail"]
    admin.delete(f"/api/instruments/{instrument.pk}")
    assert admin.delete(f"/api/service-accounts/{account.pk}").status_code == 204


# -------------------------------------------------------------------------------------------------------- concurrent


def test_a_change_with_an_old_etag_is_refused_and_changes_nothing(admin: APIClient, instrument: Instrument) -> None:
    url = f"/api/instruments/{instrument.pk}"
    etag = admin.get(url)["ETag"]
    first = admin.patch(url, {"location": "here"}, format="json", headers={"If-Match": etag})
    assert first.status_code == 200
    assert first["ETag"] != etag
    for late in (
        admin.patch(url, {"location": "there"}, format="json", headers={"If-Match": etag}),
        admin.delete(url, headers={"If-Match": etag}),
    ):
        assert late.status_code == 412
        assert "changed" in late.json()["detail"]
    assert admin.get(url).json()["location"] == "here"
    for known in (f'"other", {first["ETag"]}', "*"):
        assert admin.patch(url, {}, format="json", headers={"If-Match": known}).status_code == 200


def test_a_name_taken_at_the_same_moment_is_a_conflict(
    admin: APIClient, instrument: Instrument, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Between our look and the write somebody else took the name: as if the look had seen nothing.
    monkeypatch.setattr("streamweave.lib.rest.configured.refuse_taken_name", lambda row, name: None)
    refused = admin.post("/api/instruments", an_instrument(name=instrument.name), format="json")
    assert refused.status_code == 409
    assert Instrument.objects.count() == 1
    assert not AuditEvent.objects.exists()


def test_a_patch_changes_what_it_names_and_moves_updated_at(admin: APIClient, instrument: Instrument) -> None:
    before = admin.get(f"/api/instruments/{instrument.pk}").json()
    after = admin.patch(f"/api/instruments/{instrument.pk}", {"description": ""}, format="json").json()
    assert after.pop("updated_at") > before.pop("updated_at")
    assert after == before


def test_changing_the_account_resumes_a_paused_instrument(admin: APIClient, instrument: Instrument) -> None:
    Instrument.objects.update(paused_at="2026-01-01T00:00:00Z", paused_reason="refused")
    url = f"/api/instruments/{instrument.pk}"
    assert admin.get(url).json()["paused_reason"] == "refused"
    assert admin.patch(url, {"description": "x"}, format="json").json()["paused_at"] is not None
    assert admin.patch(url, {"cifs_share": "other"}, format="json").json()["paused_at"] is None


def test_a_paused_instrument_is_resumed(admin: APIClient, instrument: Instrument) -> None:
    Instrument.objects.update(paused_at="2026-01-01T00:00:00Z", paused_reason="refused")
    resumed = admin.post(f"/api/instruments/{instrument.pk}/resume")
    assert resumed.status_code == 200
    assert resumed.json()["paused_at"] is None
    assert AuditEvent.objects.get().action == "instrument.resumed"


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"colour": "red"}, "colour"),
        ({"id": str(uuid4())}, "id"),
        ({"deleted_at": None}, "deleted_at"),
        ({"created_at": "2026-01-01T00:00:00Z"}, "created_at"),
        ({"storage_folder": "x"}, "storage_folder"),
        ({"paused_at": None}, "paused_at"),
        ({"name": ""}, "name"),
        ({"name": None}, "name"),
        ({"name": ["x"]}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "\U0001f52c" * 100}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"cifs_host": "tem:99999"}, "cifs_host"),
        ({"cifs_host": "tem:445:445"}, "cifs_host"),
        ({"max_connections": 2**15}, "max_connections"),
        ({"min_age_seconds": 2**31}, "min_age_seconds"),
        ({"max_bytes_per_second": 2**63}, "max_bytes_per_second"),
        ({"cifs_base_path": "../.."}, "cifs_base_path"),
        ({"enabled": "perhaps"}, "enabled"),
        ({"enabled": None}, "enabled"),
        ({"service_account_id": "no-uuid"}, "service_account_id"),
        ({"service_account_id": 7}, "service_account_id"),
        ({"service_account_id": {}}, "service_account_id"),
        ({"service_account_id": str(uuid4())}, "service_account_id"),
        ({"transfer_config": []}, "transfer_config"),
        ({"transfer_config": "text"}, "transfer_config"),
        ({"transfer_config": {"a": "\x00"}}, "transfer_config"),
        ({"min_age_seconds": -1}, "min_age_seconds"),
        ({"min_age_seconds": 10**30}, "min_age_seconds"),
        ({"max_connections": 0}, "max_connections"),
        ({"max_bytes_per_second": 10**30}, "max_bytes_per_second"),
        ({"replaced_file": "whatever"}, "replaced_file"),
        ({"quiet_from": "08:00"}, "quiet_until"),
        ({"quiet_timezone": "Mars/Olympus"}, "quiet_timezone"),
    ],
)
def test_a_wrong_instrument_is_refused_by_its_field_when_made_and_when_changed(
    admin: APIClient, instrument: Instrument, data: dict[str, Any], field: str
) -> None:
    for response in (
        admin.post("/api/instruments", an_instrument(**data), format="json"),
        admin.patch(f"/api/instruments/{instrument.pk}", data, format="json"),
    ):
        assert response.status_code == 400, response.content
        assert list(response.json()) == [field]
    assert Instrument.objects.count() == 1
    assert not AuditEvent.objects.exists()


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"type": "tape"}, "type"),
        ({"type": None}, "type"),
        ({"connection_config": {}}, "connection_config"),
        ({"connection_config": []}, "connection_config"),
        ({"connection_config": {"bucket": 1}}, "connection_config"),
        ({"connection_config": {**an_s3()["connection_config"], "colour": 1}}, "connection_config"),
        ({"connection_config": {**an_s3()["connection_config"], "secret_access_key": "****"}}, "connection_config"),
        ({"connection_config": {**an_s3()["connection_config"], "secret_access_key": 5}}, "connection_config"),
        ({"connection_config": {**an_s3()["connection_config"], "endpoint_url": "ftp://x"}}, "connection_config"),
        ({"base_path": ""}, "base_path"),
        ({"secrets": "x"}, "secrets"),
    ],
)
def test_a_wrong_storage_is_refused_by_its_field(admin: APIClient, data: dict[str, Any], field: str) -> None:
    response = admin.post("/api/storage-locations", an_s3(**data), format="json")
    assert response.status_code == 400, response.content
    assert list(response.json()) == [field]
    assert S3_SECRET_KEY not in response.content.decode()
    assert not StorageLocation.objects.exists()


@pytest.mark.parametrize(
    "body",
    ["[]", '"x"', "7", "null", "{", '{"name": NaN}', '{"name": "\\ud800"}', '{"\\ud800": 1}', "[" * 100_000, "\udcff"],
)
def test_a_body_that_is_no_object_is_refused(admin: APIClient, instrument: Instrument, body: str) -> None:
    for method, url in (("POST", "/api/instruments"), ("PATCH", f"/api/instruments/{instrument.pk}")):
        response = admin.generic(method, url, body.encode(errors="surrogateescape"), content_type="application/json")
        assert response.status_code == 400, response.content
        assert "detail" in response.json() or "non_field_errors" in response.json()


@pytest.mark.parametrize("password", ["", "****", None, "a\x00b"])
def test_an_account_needs_a_password(admin: APIClient, password: str | None) -> None:
    data = {"name": "a", "username": "svc", "password": password}
    response = admin.post("/api/service-accounts", data, format="json")
    assert response.status_code == 400
    assert list(response.json()) == ["password"]


def test_a_deleted_account_cannot_be_given_to_an_instrument(admin: APIClient, account: ServiceAccount) -> None:
    account.soft_delete()
    response = admin.post("/api/instruments", an_instrument(service_account_id=str(account.pk)), format="json")
    assert response.status_code == 400
    assert "deleted" in response.json()["service_account_id"][0]


@pytest.mark.parametrize("prefix", ANYWHERE)
@pytest.mark.parametrize("pk", ["no-uuid", "0", "%00", "'", str(uuid4())])
def test_what_is_not_there_is_the_same_404_whatever_the_id(admin: APIClient, prefix: str, pk: str) -> None:
    expected = admin.get(f"{prefix}/{uuid4()}")
    assert expected.status_code == 404
    assert expected.json()["detail"].endswith(" not found")
    for response in (
        admin.get(f"{prefix}/{pk}"),
        admin.patch(f"{prefix}/{pk}", {}, format="json"),
        admin.delete(f"{prefix}/{pk}"),
        admin.post(f"{prefix}/{pk}/restore"),
    ):
        assert (response.status_code, response.content) == (404, expected.content)


@pytest.mark.parametrize("prefix", ANYWHERE)
def test_nobody_else_gets_in_whether_it_exists_or_not(stranger: APIClient, instrument: Instrument, prefix: str) -> None:
    for pk in (instrument.pk, uuid4(), "no-uuid"):
        for response in (
            stranger.get(prefix),
            stranger.post(prefix, {}, format="json"),
            stranger.get(f"{prefix}/{pk}"),
            stranger.patch(f"{prefix}/{pk}", {}, format="json"),
            stranger.delete(f"{prefix}/{pk}"),
            stranger.post(f"{prefix}/{pk}/restore"),
        ):
            assert response.status_code == 403
            assert response.json() == {"detail": "Admin access required"}
    assert APIClient().get(prefix).status_code == 401


@pytest.mark.parametrize("query", ["include_deleted=perhaps", "limit=0", "limit=100000", "cursor=nonsense"])
def test_a_wrong_query_is_refused_by_its_name(admin: APIClient, query: str) -> None:
    response = admin.get(f"/api/instruments?{query}")
    assert response.status_code == 400
    assert list(response.json()) == [query.partition("=")[0]]


def test_a_place_where_files_are_stored_does_not_move(
    admin: APIClient, on_share: Path, schedule: HarvestSchedule, harvest: Any, archive: StorageLocation, tmp_path: Path
) -> None:
    (on_share / "fid").write_bytes(b"x")
    harvest(schedule)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    refused = admin.patch(f"/api/storage-locations/{archive.pk}", {"base_path": str(elsewhere)}, format="json")
    assert refused.status_code == 400
    assert list(refused.json()) == ["base_path"]


@pytest.mark.parametrize(
    ("host", "reached"), [("[::1]:1445", ("::1", 1445)), ("[::1]", ("::1", 445)), ("::1", ("::1", 445))]
)
def test_an_ipv6_address_in_brackets_is_the_address_that_is_reached(
    admin: APIClient, account: ServiceAccount, host: str, reached: tuple[str, int]
) -> None:
    made = admin.post("/api/instruments", an_instrument(cifs_host=host, service_account_id=str(account.pk)), "json")
    assert made.status_code == 201, made.content
    source: Any = Instrument.objects.get(pk=made.json()["id"]).open_source()
    assert (source.address.host, source.address.port) == reached


# ---------------------------------------------------------------------------------------------------------- trying it


def test_an_instrument_is_tried_out_on_its_share(admin: APIClient, instrument: Instrument, on_share: Path) -> None:
    found = admin.post(f"/api/instruments/{instrument.pk}/test").json()
    assert found["ok"] is True
    assert all(check["ok"] for check in found["checks"])
    ServiceAccount.objects.get().instruments.update(cifs_share="nothing")
    found = admin.post(f"/api/instruments/{instrument.pk}/test").json()
    assert found["ok"] is False
    assert found["checks"][-1]["ok"] is False
    assert found["checks"][-1]["detail"]


def test_a_storage_is_tried_out_on_a_real_server(admin: APIClient, weed: SeaweedServer) -> None:
    made = admin.post("/api/storage-locations", an_s3(weed.port), format="json").json()
    found = admin.post(f"/api/storage-locations/{made['id']}/test").json()
    assert found["ok"] is True, found
    config = {**made["connection_config"], "secret_access_key": "wrong"}
    admin.patch(f"/api/storage-locations/{made['id']}", {"connection_config": config}, format="json")
    found = admin.post(f"/api/storage-locations/{made['id']}/test").json()
    assert found["ok"] is False


def test_an_instrument_is_harvested_by_each_schedule_that_can_run(
    admin: APIClient, schedule: HarvestSchedule, second_archive: StorageLocation
) -> None:
    second = HarvestSchedule.objects.create(
        instrument=schedule.instrument, default_storage_location=second_archive, cron_expression="0 2 * * *"
    )
    url = f"/api/instruments/{schedule.instrument_id}/harvest"
    begun = admin.post(url).json()
    assert [one["schedule_id"] for one in begun] == [str(schedule.pk), str(second.pk)]
    assert {one["run_id"] for one in begun} == {str(run.pk) for run in HarvestRun.objects.all()}
    StorageLocation.objects.filter(pk=second_archive.pk).update(enabled=False)
    assert [one["schedule_id"] for one in admin.post(url).json()] == [str(schedule.pk)]
    StorageLocation.objects.update(enabled=False)
    refused = admin.post(url)
    assert refused.status_code == 409
    assert "disabled" in refused.json()["detail"]
    HarvestSchedule.objects.update(enabled=False)
    assert "no enabled schedule" in admin.post(url).json()["detail"]


@pytest.mark.parametrize("prefix", [*ANYWHERE, "/api/runs", "/api/health", "/api/hooks/builtins"])
def test_the_browsable_pages_work(
    administrator: User, schedule: HarvestSchedule, account: ServiceAccount, prefix: str
) -> None:
    pages = Client()
    pages.force_login(administrator, backend="access.backends.EmailBackend")
    page = pages.get(prefix, headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert page["Content-Type"].startswith("text/html")
    rows = pages.get(prefix).json()
    if prefix in ANYWHERE[:4]:
        assert "<form" in page.content.decode()
        page = pages.get(f"{prefix}/{rows[0]['id']}", headers={"Accept": "text/html"})
        assert page.status_code == 200
