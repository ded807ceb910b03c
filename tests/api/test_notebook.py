"""The notebook of the original StreamWeave, sections 2 to 14, against `manage.py demo --no-harvest`.

Every request is the notebook's own. Only the base address differs, and what it does in containers with `docker exec` is
done in the demonstration's folder and with the ORM.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.notebook import Client, all_same_keys, holds, ok, same_keys, wait_for_flow_run
from tests.journeys.processes import ROOT, Process
from tests.journeys.test_demo_command import NMR, NMR_FILES, DemoLab

ADMIN_EMAIL = "admin@example.com"
ADMIN_PASSWORD = "adminpassword"

INSTRUMENT = (
    "id", "name", "description", "location", "pid", "cifs_host", "cifs_share", "cifs_base_path", "service_account_id",
    "transfer_adapter", "transfer_config", "enabled", "created_at", "updated_at", "deleted_at",
)  # fmt: skip
LOCATION = (
    "id", "name", "type", "connection_config", "base_path", "enabled", "created_at", "updated_at", "deleted_at",
)  # fmt: skip
SCHEDULE = (
    "id", "instrument_id", "default_storage_location_id", "cron_expression", "prefect_deployment_id", "enabled",
    "created_at", "updated_at", "deleted_at",
)  # fmt: skip
HOOK = (
    "id", "name", "description", "trigger", "implementation", "builtin_name", "script_path", "webhook_url", "config",
    "instrument_id", "priority", "enabled", "deleted_at",
)  # fmt: skip
FILE = (
    "id", "persistent_id", "persistent_id_type", "instrument_id", "source_path", "filename", "size_bytes",
    "source_mtime", "xxhash", "sha256", "first_discovered_at", "metadata_", "owner_id",
)  # fmt: skip
TRANSFER = (
    "id", "file_id", "storage_location_id", "destination_path", "transfer_adapter", "status", "bytes_transferred",
    "source_checksum", "dest_checksum", "checksum_verified", "started_at", "completed_at", "error_message",
    "prefect_flow_run_id",
)  # fmt: skip
GRANT = ("id", "file_id", "grantee_type", "grantee_id", "granted_at")
CIRCLE = ("id", "name", "description", "created_at", "updated_at")
GROUP_MEMBER = ("group_id", "user_id", "email")
PROJECT_MEMBER = ("id", "project_id", "member_type", "member_id", "email")
USER = ("id", "email", "is_active", "is_superuser", "is_verified", "role", "deleted_at")
NOT_FOUND = {"detail": "File not found"}
NOT_ADMIN = {"detail": "Admin access required"}

PATTERN = r"^(?P<date>\d{8})_(?P<compound>[^_/]+)_(?P<nucleus>[^/]+)/"


@pytest.fixture(scope="module")
def lab() -> Iterator[DemoLab]:
    """The demonstration, before its first harvest."""
    home = Path(tempfile.mkdtemp(prefix="streamweave-notebook-"))
    home.chmod(0o755)
    lab = DemoLab(home / "demo")
    with Process(lab.command("--no-harvest"), lab.env, home / "output") as demo:
        demo.await_output("Ctrl-C stops everything")
        yield lab
        demo.interrupt()
        assert demo.wait() == 0, demo.output
    shutil.rmtree(home)


@pytest.mark.timeout(600)
def test_the_notebook_runs_from_top_to_bottom(lab: DemoLab) -> None:
    notebook = Notebook(lab)
    for section in (
        notebook.is_ready,
        notebook.s2_get_an_auth_token,
        notebook.s3_verify_seeded_data,
        notebook.s3a_instruments,
        notebook.s3b_storage_locations,
        notebook.s3c_schedules,
        notebook.s3d_hooks,
        notebook.s4_trigger_a_manual_harvest,
        notebook.s5_verify_harvest_results,
        notebook.s6_pre_transfer_hook,
        notebook.s7_post_transfer_hook,
        notebook.s8_user_scoped_access,
        notebook.s8f_list_and_revoke_a_grant,
        notebook.s9_group_based_access,
        notebook.s10b_groups_crud,
        notebook.s10c_project_based_access,
        notebook.s10c_direct_membership,
        notebook.s10c_projects_crud,
        notebook.s10c_not_for_users,
        notebook.s11_filtering,
        notebook.s12_schedules,
        notebook.s13_idempotent_discovery,
        notebook.s14_current_user,
        notebook.s14b_users,
        notebook.s14d_delete_and_restore,
        notebook.s14e_memberships,
    ):
        section()
    notebook.client.close()
    notebook.prefect.close()


@pytest.mark.timeout(300)
def test_the_requests_on_the_page_about_the_api_work_as_they_stand(lab: DemoLab, tmp_path: Path) -> None:
    """All its shell blocks, one after the other in one shell; each prints what the block after it says at its end."""
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    assert "http://127.0.0.1:8000" in page
    page = page.replace("http://127.0.0.1:8000", f"http://127.0.0.1:{lab.port}")
    blocks = re.findall(r"```(sh|text)\n(.*?)```", page, re.DOTALL)
    mark = "=== the block has ended ==="
    commands = [code for language, code in blocks if language == "sh"]
    script = "set -euo pipefail\n" + "".join(f"{code}\necho; echo '{mark}'\n" for code in commands)
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    outputs = done.stdout.split(mark)
    assert done.returncode == 0, f"after block {len(outputs)}:\n{outputs[-1]}{done.stderr}"
    number = -1
    for language, text in blocks:
        number += language == "sh"
        if language == "text":
            assert outputs[number].rstrip().endswith(text.rstrip()), outputs[number]
    original = lab.folder / "shares/nmr/20260115_glucose_1H/acqus"
    assert (tmp_path / "acqus").read_bytes() == original.read_bytes()


class Notebook:
    """Its cells, in order; what one finds out, later ones use."""

    def __init__(self, lab: DemoLab) -> None:
        self.lab = lab
        base_url = f"http://127.0.0.1:{lab.port}"
        self.client = Client(base_url)
        self.prefect = Client(f"{base_url}/prefect/api")

    def is_ready(self) -> None:
        assert ok(self.client.get("/health"), 200) == {"status": "ok"}

    def s2_get_an_auth_token(self) -> None:
        answer = self.client.post("/auth/jwt/login", data={"username": ADMIN_EMAIL, "password": ADMIN_PASSWORD})
        token = ok(answer, 200)
        assert list(token)[:2] == ["access_token", "token_type"]
        assert token["token_type"] == "bearer"
        assert "Set-Cookie" not in answer.headers
        for client in (self.client, self.prefect):
            client.headers["Authorization"] = f"Bearer {token['access_token']}"

    def s3_verify_seeded_data(self) -> None:
        counts = {
            "service-accounts": 3,
            "storage-locations": 3,
            "instruments": 4,
            "schedules": 4,
            "hooks": 3,
            "admin/users": 5,
        }
        assert {name: len(ok(self.client.get(f"/api/{name}"), 200)) for name in counts} == counts

    def s3a_instruments(self) -> None:
        self.instruments = ok(self.client.get("/api/instruments"), 200)
        all_same_keys(self.instruments, INSTRUMENT, what="instrument")
        assert [(row["name"], row["cifs_share"], row["enabled"]) for row in self.instruments] == [
            (NMR, "nmr", True),
            ("Waters Acquity UPLC-MS", "hplc", True),
            ("Thermo Orbitrap Exploris 480", "ms", True),
            ("FEI Titan Themis 300 TEM", "tem", False),
        ]
        common = {"pid": None, "cifs_base_path": "/", "transfer_adapter": "rclone", "transfer_config": None}
        for row in self.instruments:
            holds(row, {**common, "deleted_at": None})
        assert [row["service_account_id"] is None for row in self.instruments] == [False, False, False, True]

    def s3b_storage_locations(self) -> None:
        locations = ok(self.client.get("/api/storage-locations"), 200)
        all_same_keys(locations, LOCATION, what="storage location")
        assert [(row["name"], row["type"]) for row in locations] == [
            ("Local POSIX archive", "posix"),
            ("S3 dev bucket", "s3"),
            ("Samba archive share", "cifs"),
        ]
        posix, s3, cifs = (row["connection_config"] for row in locations)
        assert posix is None
        assert list(s3) == ["bucket", "region", "endpoint_url", "access_key_id", "secret_access_key"]
        assert (s3["access_key_id"], s3["secret_access_key"]) == ("devkey", "****")
        assert list(cifs) == ["host", "share", "domain", "username", "password"]
        assert (cifs["domain"], cifs["username"], cifs["password"]) == (None, "devuser", "****")
        assert [row["base_path"] for row in locations[1:]] == ["instruments", "/archive"]

    def s3c_schedules(self) -> None:
        self.schedules = ok(self.client.get("/api/schedules"), 200)
        all_same_keys(self.schedules, SCHEDULE, what="schedule")
        assert [row["cron_expression"] for row in self.schedules] == [
            "0 1 * * *", "0 2 * * *", "0 4 * * *", "0 0 * * *",
        ]  # fmt: skip
        deployments = [row["prefect_deployment_id"] for row in self.schedules]
        assert None not in deployments
        assert deployments[0] == deployments[1]  # two schedules of one instrument
        assert len(set(deployments)) == 3

    def s3d_hooks(self) -> None:
        hooks = ok(self.client.get("/api/hooks"), 200)
        all_same_keys(hooks, HOOK, what="hook")
        assert [(row["name"], row["trigger"], row["builtin_name"], row["priority"]) for row in hooks] == [
            ("Auto-assign file access on transfer", "post_transfer", "access_assignment", 0),
            ("NMR metadata enrichment", "post_transfer", "metadata_enrichment", 10),
            ("Skip zero-byte and temp files", "pre_transfer", "file_filter", 0),
        ]
        empty = {"implementation": "builtin", "script_path": None, "webhook_url": None, "deleted_at": None}
        for row in hooks:
            holds(row, empty)
        filtering = {"min_size_bytes": 1, "exclude_patterns": ["*.tmp", "*.lock", "~*"]}
        assert [row["config"] for row in hooks] == [None, None, filtering]
        instruments = ok(self.client.get("/api/instruments"), 200)
        nmr = next(row for row in instruments if "NMR" in row["name"])
        assert [row["instrument_id"] for row in hooks] == [None, nmr["id"], None]
        self.schedule_id = next(row for row in self.schedules if row["instrument_id"] == nmr["id"])["id"]

    def trigger(self) -> str:
        """Triggers the NMR schedule and waits for the end of its flow run."""
        answer = self.client.post(f"/api/schedules/{self.schedule_id}/trigger")
        triggered = ok(answer, 200, 201, 202)
        same_keys(triggered, ("flow_run_id", "schedule_id"), what="trigger")
        assert triggered["schedule_id"] == self.schedule_id
        flow_run_id: str = triggered["flow_run_id"]
        assert wait_for_flow_run(self.prefect, flow_run_id) == "COMPLETED"
        return flow_run_id

    def s4_trigger_a_manual_harvest(self) -> None:
        flow_run_id = self.trigger()
        page = self.client.get(f"/prefect/runs/flow-run/{flow_run_id}")
        assert page.status_code in (301, 302)
        assert flow_run_id in page.headers["Location"]

    def s5_verify_harvest_results(self) -> None:
        files = ok(self.client.get("/api/files"), 200)
        assert len(files) == 10
        all_same_keys(files, FILE, what="file")
        assert {row["source_path"] for row in files} == NMR_FILES.keys()
        for row in files:
            assert row["persistent_id"].startswith("ark:/99999/fk4")
            holds(row, {"persistent_id_type": "ark", "instrument_id": self.instruments[0]["id"], "metadata_": {}})
            assert row["owner_id"] is None
            assert row["filename"] == row["source_path"].rpartition("/")[2]
            assert len(row["xxhash"]) == 16
        assert [row["first_discovered_at"] for row in files] == sorted(
            (row["first_discovered_at"] for row in files), reverse=True
        )
        self.s5b_file_transfers({row["id"]: row for row in files})
        assert self.stored() == {f"{NMR}/{path}" for path in NMR_FILES}

    def s5b_file_transfers(self, files: dict[str, Any]) -> None:
        transfers = ok(self.client.get("/api/transfers"), 200)
        assert len(transfers) == 10
        all_same_keys(transfers, TRANSFER, what="transfer")
        for row in transfers:
            file = files[row["file_id"]]
            holds(row, {"status": "completed", "transfer_adapter": "rclone", "error_message": None})
            assert row["dest_checksum"] == file["xxhash"]
            assert row["bytes_transferred"] == file["size_bytes"]
            assert row["destination_path"] == f"{self.lab.posix}/{NMR}/{file['source_path']}"
            assert row["started_at"] <= row["completed_at"]

    def stored(self) -> set[str]:
        """What `tree` shows: everything that is not hidden."""
        found = (path.relative_to(self.lab.posix) for path in self.lab.posix.rglob("*") if path.is_file())
        return {path.as_posix() for path in found if not path.parts[0].startswith(".")}

    def s6_pre_transfer_hook(self) -> None:
        share = self.lab.folder / "shares/nmr"
        (share / "scratch.tmp").write_text("temp data\n")
        (share / "empty.txt").touch()
        self.trigger()
        files = ok(self.client.get("/api/files"), 200)
        assert len(files) == 12
        assert {row["filename"] for row in files[:2]} == {"scratch.tmp", "empty.txt"}
        scratch = next(row for row in files if row["filename"] == "scratch.tmp")
        holds(scratch, {"size_bytes": 10, "xxhash": None, "sha256": None, "metadata_": {}})
        for file in files[:2]:
            transfers = ok(self.client.get(f"/api/transfers?file_id={file['id']}"), 200)
            assert transfers
            assert all(row["status"] == "skipped" for row in transfers)

    def s7_post_transfer_hook(self) -> None:
        hooks = ok(self.client.get("/api/hooks"), 200)
        nmr_hook = next(row for row in hooks if "NMR" in row["name"])
        config = {"rules": [{"source": "path", "pattern": PATTERN}]}
        answer = ok(self.client.patch(f"/api/hooks/{nmr_hook['id']}", json={"config": config}), 200)
        assert {**nmr_hook, "config": config, **_times(answer)} == answer
        self.clear()
        self.trigger()
        files = ok(self.client.get("/api/files"), 200)
        assert len(files) == 12
        for row in files:
            folder, slash, _ = row["source_path"].partition("/")
            names = dict(zip(("date", "compound", "nucleus"), folder.split("_"), strict=True)) if slash else {}
            assert row.get("metadata_") == names

    def clear(self) -> None:
        """`rm -rf /storage/posix-archive/*`, and the deletion of all file records."""
        for entry in self.lab.posix.glob("[!.]*"):
            shutil.rmtree(entry)
        deleted = self.lab.ask(
            "from harvest.models import FileRecord, FileTransfer\n"
            "answer = [FileTransfer.objects.all().delete()[1]['harvest.FileTransfer'],"
            " FileRecord.objects.all().delete()[1]['harvest.FileRecord']]"
        )
        assert deleted == [12, 12]

    def log_in(self, email: str, password: str) -> dict[str, str]:
        answer = ok(self.client.post("/auth/jwt/login", data={"username": email, "password": password}), 200)
        return {"Authorization": f"Bearer {answer['access_token']}"}

    def s8_user_scoped_access(self) -> None:
        self.user_auth = self.log_in("chemist@example.com", "devpass123!")
        self.user_id = ok(self.client.get("/api/me", headers=self.user_auth), 200)["id"]
        assert ok(self.client.get("/api/files", headers=self.user_auth), 200) == []
        assert ok(self.client.get("/api/transfers", headers=self.user_auth), 200) == []
        first, other, *_ = ok(self.client.get("/api/files"), 200)
        self.file_id, self.file = first["id"], first
        self.grant("user", self.user_id)
        assert [row["id"] for row in ok(self.client.get("/api/files", headers=self.user_auth), 200)] == [self.file_id]
        self.sees(self.user_auth)
        answer = self.client.get(f"/api/files/{other['id']}", headers=self.user_auth)
        assert ok(answer, 404) == NOT_FOUND

    def grant(self, grantee_type: str, grantee_id: str) -> None:
        body = {"grantee_type": grantee_type, "grantee_id": grantee_id}
        grant = ok(self.client.post(f"/api/files/{self.file_id}/access", json=body), 200, 201)
        same_keys(grant, GRANT, what="grant")
        holds(grant, {**body, "file_id": self.file_id})

    def sees(self, auth: dict[str, str]) -> None:
        file = ok(self.client.get(f"/api/files/{self.file_id}", headers=auth), 200)
        same_keys(file, FILE, what="file")
        assert {name: file[name] for name in FILE} == {name: self.file[name] for name in FILE}

    def does_not_see(self, auth: dict[str, str]) -> None:
        assert ok(self.client.get(f"/api/files/{self.file_id}", headers=auth), 404) == NOT_FOUND

    def s8f_list_and_revoke_a_grant(self) -> None:
        grants = ok(self.client.get(f"/api/files/{self.file_id}/access"), 200)
        all_same_keys(grants, GRANT, what="grant")
        assert [(row["grantee_type"], row["grantee_id"]) for row in grants] == [("user", self.user_id)]
        ok(self.client.delete(f"/api/files/{self.file_id}/access/{grants[0]['id']}"), 204)
        self.does_not_see(self.user_auth)

    def s9_group_based_access(self) -> None:
        groups = ok(self.client.get(f"/api/admin/users/{self.user_id}/groups"), 200)
        all_same_keys(groups, CIRCLE, what="group")
        assert [row["name"] for row in groups] == ["Chemistry & Chemical Biology", "Analytical Core"]
        self.group_id = groups[0]["id"]
        ok(self.client.delete(f"/api/groups/{self.group_id}/members/{self.user_id}"), 204)
        self.join_group()
        self.grant("group", self.group_id)
        self.sees(self.user_auth)

    def join_group(self) -> None:
        member = ok(self.client.post(f"/api/groups/{self.group_id}/members", json={"user_id": self.user_id}), 200, 201)
        same_keys(member, GROUP_MEMBER, what="group member")
        holds(member, {"group_id": self.group_id, "user_id": self.user_id, "email": "chemist@example.com"})

    def s10b_groups_crud(self) -> None:
        groups = ok(self.client.get("/api/groups"), 200)
        all_same_keys(groups, CIRCLE, what="group")
        assert [row["name"] for row in groups] == [
            "Chemistry & Chemical Biology", "Proteomics Core", "EM Facility", "Analytical Core",
        ]  # fmt: skip
        group = ok(self.client.get(f"/api/groups/{self.group_id}"), 200)
        assert group == groups[0]
        members = ok(self.client.get(f"/api/groups/{self.group_id}/members"), 200)
        all_same_keys(members, GROUP_MEMBER, what="group member")
        assert [row["email"] for row in members] == ["bioinformatics@example.com", "chemist@example.com"]
        changed = {"description": "Updated description"}
        updated = ok(self.client.patch(f"/api/groups/{self.group_id}", json=changed), 200)
        same_keys(updated, CIRCLE, what="group")
        holds(updated, {**changed, "name": group["name"], "created_at": group["created_at"]})
        assert updated["updated_at"] > group["updated_at"]
        ok(self.client.delete(f"/api/groups/{self.group_id}/members/{self.user_id}"), 204)
        self.does_not_see(self.user_auth)

    def s10c_project_based_access(self) -> None:
        self.join_group()
        body = {"name": "Microscopy Study 2026", "description": "Main research project"}
        project = ok(self.client.post("/api/projects", json=body), 200, 201)
        same_keys(project, CIRCLE, what="project")
        self.project_id = project["id"]
        self.join_project("group", self.group_id, email=None)
        grants = ok(self.client.get(f"/api/files/{self.file_id}/access"), 200)
        assert len(grants) == 1
        for row in grants:
            ok(self.client.delete(f"/api/files/{self.file_id}/access/{row['id']}"), 204)
        self.grant("project", self.project_id)
        self.sees(self.user_auth)

    def join_project(self, member_type: str, member_id: str, *, email: str | None) -> None:
        body = {"member_type": member_type, "member_id": member_id}
        member = ok(self.client.post(f"/api/projects/{self.project_id}/members", json=body), 200, 201)
        same_keys(member, PROJECT_MEMBER, what="project member")
        holds(member, {**body, "project_id": self.project_id, "email": email})

    def register(self, email: str, password: str) -> dict[str, Any]:
        user: dict[str, Any] = ok(self.client.post("/auth/register", json={"email": email, "password": password}), 201)
        same_keys(user, USER, what="user")
        holds(user, {"email": email, "is_active": True, "is_superuser": False, "is_verified": False, "role": "user"})
        assert user["deleted_at"] is None
        return user

    def s10c_direct_membership(self) -> None:
        registered = self.register("postdoc@test.org", "testpassword123")
        self.postdoc_auth = self.log_in("postdoc@test.org", "testpassword123")
        self.postdoc_id = ok(self.client.get("/api/me", headers=self.postdoc_auth), 200)["id"]
        assert self.postdoc_id == registered["id"]
        self.join_project("user", self.postdoc_id, email="postdoc@test.org")
        self.sees(self.postdoc_auth)

    def s10c_projects_crud(self) -> None:
        projects = ok(self.client.get("/api/projects"), 200)
        all_same_keys(projects, CIRCLE, what="project")
        assert [row["name"] for row in projects] == [
            "Kinase Inhibitor Fragment Screen", "HER2 Phosphoproteome Profiling",
            "Gold Nanoparticle Structure Determination", "Multi-omics Cancer Biomarker Discovery",
            "Microscopy Study 2026",
        ]  # fmt: skip
        members = ok(self.client.get(f"/api/projects/{self.project_id}/members"), 200)
        all_same_keys(members, PROJECT_MEMBER, what="project member")
        assert [(row["member_type"], row["member_id"], row["email"]) for row in members] == [
            ("group", self.group_id, None),
            ("user", self.postdoc_id, "postdoc@test.org"),
        ]
        ok(self.client.delete(f"/api/projects/{self.project_id}/members/{self.postdoc_id}"), 204)
        self.does_not_see(self.postdoc_auth)

    def s10c_not_for_users(self) -> None:
        for endpoint in ("/api/groups", "/api/projects", f"/api/files/{self.file_id}/access"):
            assert ok(self.client.get(endpoint, headers=self.user_auth), 403) == NOT_ADMIN

    def s11_filtering(self) -> None:
        self.instrument_id = self.instruments[0]["id"]
        assert len(ok(self.client.get(f"/api/files?instrument_id={self.instrument_id}"), 200)) == 12
        other = self.instruments[1]["id"]
        assert ok(self.client.get(f"/api/files?instrument_id={other}"), 200) == []
        file_id = ok(self.client.get("/api/files"), 200)[0]["id"]
        transfers = ok(self.client.get(f"/api/transfers?file_id={file_id}"), 200)
        all_same_keys(transfers, TRANSFER, what="transfer")
        assert [row["file_id"] for row in transfers] == [file_id]
        same_keys(ok(self.client.get(f"/api/files/{file_id}"), 200), FILE, what="file")
        first = ok(self.client.get("/api/transfers"), 200)[0]
        assert ok(self.client.get(f"/api/transfers/{first['id']}"), 200) == first

    def s12_schedules(self) -> None:
        storage_id = ok(self.client.get("/api/storage-locations"), 200)[0]["id"]
        body = {
            "instrument_id": self.instrument_id,
            "default_storage_location_id": storage_id,
            "cron_expression": "0 */6 * * *",
            "enabled": True,
        }
        schedule = ok(self.client.post("/api/schedules", json=body), 200, 201)
        same_keys(schedule, SCHEDULE, what="schedule")
        holds(schedule, {**body, "deleted_at": None})
        assert schedule["prefect_deployment_id"] == self.schedules[0]["prefect_deployment_id"]
        listed = ok(self.client.get("/api/schedules"), 200)
        assert [row["id"] for row in listed] == [row["id"] for row in self.schedules] + [schedule["id"]]
        new_schedule_id = listed[-1]["id"]
        changed = {"cron_expression": "0 */12 * * *"}
        updated = ok(self.client.patch(f"/api/schedules/{new_schedule_id}", json=changed), 200)
        same_keys(updated, SCHEDULE, what="schedule")
        kept = {name: schedule[name] for name in SCHEDULE if name != "updated_at"}
        holds(updated, {**kept, **changed})
        assert updated["updated_at"] > schedule["updated_at"]

    def s13_idempotent_discovery(self) -> None:
        self.trigger()
        before = len(ok(self.client.get("/api/files"), 200))
        self.trigger()
        after = len(ok(self.client.get("/api/files"), 200))
        assert before == after == 12

    def s14_current_user(self) -> None:
        me = ok(self.client.get("/api/me", headers=self.user_auth), 200)
        same_keys(me, (*USER, "groups", "projects"), what="me")
        holds(me, {"id": self.user_id, "email": "chemist@example.com", "role": "user", "is_superuser": False})
        all_same_keys(me["groups"], CIRCLE, what="group")
        all_same_keys(me["projects"], CIRCLE, what="project")
        assert [row["name"] for row in me["groups"]] == ["Analytical Core", "Chemistry & Chemical Biology"]
        assert [row["name"] for row in me["projects"]] == [
            "Kinase Inhibitor Fragment Screen",
            "Microscopy Study 2026",
            "Multi-omics Cancer Biomarker Discovery",
        ]

    def s14b_users(self) -> None:
        users = ok(self.client.get("/api/admin/users"), 200)
        all_same_keys(users, USER, what="user")
        assert [(row["email"], row["role"], row["is_superuser"]) for row in users] == [
            ("admin@example.com", "admin", True),
            ("chemist@example.com", "user", False),
            ("proteomics@example.com", "user", False),
            ("em-operator@example.com", "user", False),
            ("bioinformatics@example.com", "user", False),
            ("postdoc@test.org", "user", False),
        ]
        for row in users:
            holds(row, {"is_active": True, "is_verified": False, "deleted_at": None})

    def s14d_delete_and_restore(self) -> None:
        temp_user_id = self.register("temp-demo@example.com", "devpass123!")["id"]
        ok(self.client.delete(f"/api/admin/users/{temp_user_id}"), 204)
        active = ok(self.client.get("/api/admin/users"), 200)
        assert not any(row["id"] == temp_user_id for row in active)
        everybody = ok(self.client.get("/api/admin/users?include_deleted=true"), 200)
        all_same_keys(everybody, USER, what="user")
        assert next(row for row in everybody if row["id"] == temp_user_id)["deleted_at"] is not None
        restored = ok(self.client.post(f"/api/admin/users/{temp_user_id}/restore"), 200)
        same_keys(restored, USER, what="user")
        holds(restored, {"email": "temp-demo@example.com", "deleted_at": None})

    def s14e_memberships(self) -> None:
        groups = ok(self.client.get(f"/api/admin/users/{self.user_id}/groups"), 200)
        all_same_keys(groups, CIRCLE, what="group")
        assert [row["name"] for row in groups] == ["Analytical Core", "Chemistry & Chemical Biology"]
        projects = ok(self.client.get(f"/api/admin/users/{self.user_id}/projects"), 200)
        all_same_keys(projects, CIRCLE, what="project")
        assert [row["name"] for row in projects] == ["Kinase Inhibitor Fragment Screen"]


def _times(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in row if name == "updated_at"}
