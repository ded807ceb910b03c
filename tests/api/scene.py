"""One file and the people around it: one persona for each way of seeing it, and of not seeing it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import models
from django.utils import timezone
from rest_framework.test import APIClient

from access import grants, instrument_requests, tokens
from access.members import add_members, remove_members
from access.models import ApiToken, FileUserObjectPermission, Group, Project, User
from harvest.models import (
    FileRecord,
    FileTransfer,
    FileVersion,
    HarvestRun,
    HarvestSchedule,
    Instrument,
    ServiceAccount,
    StorageLocation,
    path_key,
)
from hooks.models import HookConfig

ANONYMOUS, DEACTIVATED, ADMIN = "anonymous", "deactivated", "admin"
SEEING = ("direct", "group", "project", "project through group", "instrument")
NOT_SEEING = ("stranger", "former member", "expired")
PERSONAS = (ANONYMOUS, DEACTIVATED, *NOT_SEEING, *SEEING, ADMIN)


@dataclass
class Scene:
    """`objects` are the rows by the name of their model; `unseen` is a file that nobody but administrators sees."""

    users: dict[str, User]
    tokens: dict[str, str]
    objects: dict[str, models.Model]
    unseen: FileRecord
    clients: dict[str, APIClient] = field(default_factory=dict)

    def client(self, persona: str) -> APIClient:
        """A client that shows the persona's access token, as it was given before anybody was deactivated."""
        if persona not in self.clients:
            self.clients[persona] = APIClient(raise_request_exception=False)
            if persona != ANONYMOUS:
                self.clients[persona].credentials(HTTP_AUTHORIZATION=f"Bearer {self.tokens[persona]}")
        return self.clients[persona]

    def id_of(self, name: str) -> str:
        return str(self.objects[name].pk)


def make_scene(folder: str, *, password: str | None = None) -> Scene:
    """`folder`: where the storage location keeps its files; `password`: of everybody."""
    users = {persona: _user(persona, password) for persona in PERSONAS if persona != ANONYMOUS}
    objects = _equipment(folder)
    file, transfer = add_file(objects, "seen/fid")
    elsewhere = Instrument.objects.create(name="MS", cifs_host="127.0.0.1:1", cifs_share="other")
    unseen, _ = add_file({**objects, "instrument": elsewhere}, "unseen/fid")
    somebody = _user("somebody else")
    objects |= {"file": file, "transfer": transfer, "user": somebody, **_circles(users, file, somebody)}
    objects["instrumentrequest"] = instrument_requests.ask(user=users["direct"], name="LSM", justification="Cells")
    objects["apitoken"] = ApiToken.objects.create(
        user=users["direct"], name="script", token_version=users["direct"].token_version, digest="0" * 64, hint="x"
    )
    given = {persona: tokens.log_in(user).access for persona, user in users.items()}
    User.objects.filter(pk=users[DEACTIVATED].pk).update(is_active=False)
    return Scene(users, given, objects, unseen)


def _user(persona: str, password: str | None = None) -> User:
    role = "admin" if persona == ADMIN else "user"
    return User.objects.create_user(f"{persona.replace(' ', '-')}@example.org", password, role=role)


def _equipment(folder: str) -> dict[str, models.Model]:
    account = ServiceAccount.objects.create(name="Account", username="svc", password="s3cr3t-canary")
    instrument = Instrument.objects.create(
        name="NMR", cifs_host="127.0.0.1:1", cifs_share="data", service_account=account
    )
    location = StorageLocation.objects.create(name="Archive", type="posix", base_path=folder)
    schedule = HarvestSchedule.objects.create(
        instrument=instrument, default_storage_location=location, cron_expression="0 1 * * *"
    )
    run = HarvestRun.objects.create(schedule=schedule, instrument=instrument, storage_location=location)
    hook = HookConfig.objects.create(
        name="Filter", trigger="pre_transfer", implementation="builtin", builtin_name="file_filter"
    )
    return {
        "serviceaccount": account,
        "instrument": instrument,
        "storagelocation": location,
        "harvestschedule": schedule,
        "harvestrun": run,
        "hookconfig": hook,
    }


def add_file(objects: dict[str, Any], path: str) -> tuple[FileRecord, FileTransfer]:
    file = FileRecord.objects.create(
        instrument=objects["instrument"],
        source_path=path,
        source_path_key=path_key(path),
        filename=path.rpartition("/")[2],
        size_bytes=3,
        source_mtime=datetime(2026, 3, 1, tzinfo=UTC),
    )
    version = FileVersion.objects.create(record=file, size_bytes=3, source_mtime=file.source_mtime)
    to = objects["storagelocation"]
    transfer = FileTransfer.objects.create(
        record=file, version=version, scheduled_storage=to, storage_location=to, run=objects["harvestrun"]
    )
    return file, transfer


def _circles(users: dict[str, User], file: FileRecord, somebody: User) -> dict[str, models.Model]:
    group = Group.objects.create(name="Group")
    inner = Group.objects.create(name="Group in the project")
    project = Project.objects.create(name="Project")
    add_members(to=group, members=[users["group"], users["former member"], somebody])
    remove_members(of=group, members=[users["former member"]])
    add_members(to=inner, members=[users["project through group"]])
    add_members(to=project, members=[users["project"], inner, somebody])
    for kind, pk in (("user", users["direct"].pk), ("group", group.pk), ("project", project.pk)):
        grants.grant([file], grantee_type=kind, grantee_id=pk)
    grants.grant([file], grantee_type="user", grantee_id=users["expired"].pk)
    FileUserObjectPermission.rows.filter(user=users["expired"]).update(expires_at=timezone.now() - timedelta(hours=1))
    grants.grant_instrument(file.instrument, grantee_type="user", grantee_id=users["instrument"].pk)
    rows = FileUserObjectPermission.rows
    return {
        "group": group,
        "project": project,
        "filegrant": rows.get(user=users["direct"]),
        "instrumentgrant": rows.get(user=users["instrument"]),
    }


def absent() -> str:
    """The id of nothing."""
    return str(uuid.uuid4())
