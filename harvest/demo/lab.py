"""The demonstration lab: its people, instruments, storages, schedules and hooks, as rows. Seeding may be repeated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db import transaction

from access.members import add_members
from access.models import Group, Project, User
from harvest.models import HarvestSchedule, Instrument, ServiceAccount, StorageLocation
from hooks.models import HookConfig

ADMIN = ("admin@example.com", "adminpassword")
USERS = ("chemist@example.com", "proteomics@example.com", "em-operator@example.com", "bioinformatics@example.com")
USER_PASSWORD = "devpass123!"
S3_KEYS = ("devkey", "devsecret")
ARCHIVE_USER = ("devuser", "devpass")
BUCKET = "instruments"

SHARES = ("nmr", "hplc", "ms", "tem")
ACCOUNTS = {
    "NMR share": ("svc-nmr", "nmr-share-password"),
    "UPLC-MS share": ("svc-hplc", "hplc-share-password"),
    "Orbitrap share": ("svc-ms", "ms-share-password"),
}
SMB_USERS = dict([*ACCOUNTS.values(), ARCHIVE_USER])
"""The log-ins of the lab's SMB server, with their passwords."""


@dataclass(frozen=True)
class Endpoints:
    """Where the lab's servers are: SMB as host:port, S3 as URL, and the folder of the POSIX archive."""

    smb: str
    s3: str
    posix: Path


INSTRUMENTS: tuple[tuple[str, str, str, str, str | None, bool], ...] = (
    (
        "Bruker AVANCE III 600 MHz NMR",
        "Spectra of small molecules and proteins in solution, measured at 600 MHz.",
        "Chemistry Building, Room 102",
        "nmr",
        "NMR share",
        True,
    ),
    (
        "Waters Acquity UPLC-MS",
        "Liquid chromatography at high pressure, with a mass spectrometer as detector.",
        "Analytical Core, Room 210",
        "hplc",
        "UPLC-MS share",
        True,
    ),
    (
        "Thermo Orbitrap Exploris 480",
        "Mass spectra of high resolution for proteomics.",
        "Proteomics Core, Room 315",
        "ms",
        "Orbitrap share",
        True,
    ),
    (
        "FEI Titan Themis 300 TEM",
        "Aberration-corrected electron microscope; switched off for maintenance.",
        "Electron Microscopy Facility, Basement",
        "tem",
        None,
        False,
    ),
)
NMR, UPLC, ORBITRAP, _ = (row[0] for row in INSTRUMENTS)
POSIX_ARCHIVE, S3_BUCKET, SMB_ARCHIVE = "Local POSIX archive", "S3 dev bucket", "Samba archive share"
SCHEDULES = (
    (NMR, POSIX_ARCHIVE, "0 1 * * *"),
    (NMR, S3_BUCKET, "0 2 * * *"),
    (UPLC, POSIX_ARCHIVE, "0 4 * * *"),
    (ORBITRAP, SMB_ARCHIVE, "0 0 * * *"),
)
GROUPS = {
    "Chemistry & Chemical Biology": (
        "Chemists who measure with NMR and HPLC",
        ("chemist@example.com", "bioinformatics@example.com"),
    ),
    "Proteomics Core": (
        "Users of the mass spectrometry platform",
        ("proteomics@example.com", "bioinformatics@example.com"),
    ),
    "EM Facility": ("Operators and trained users of the electron microscopes", ("em-operator@example.com",)),
    "Analytical Core": (
        "Users of shared analytical instruments from all departments",
        ("chemist@example.com", "proteomics@example.com"),
    ),
}
PROJECTS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "Kinase Inhibitor Fragment Screen": (
        "Fragments that bind to kinases, screened by NMR",
        ("chemist@example.com", "bioinformatics@example.com"),
        (),
    ),
    "HER2 Phosphoproteome Profiling": (
        "How much of which protein is phosphorylated in HER2-positive cells",
        ("proteomics@example.com",),
        ("Proteomics Core",),
    ),
    "Gold Nanoparticle Structure Determination": (
        "Gold catalysts, imaged atom by atom",
        ("em-operator@example.com",),
        ("EM Facility",),
    ),
    "Multi-omics Cancer Biomarker Discovery": (
        "Markers of cancer found by metabolomics and proteomics together",
        ("bioinformatics@example.com",),
        ("Chemistry & Chemical Biology", "Proteomics Core"),
    ),
}


@transaction.atomic
def seed(endpoints: Endpoints | None) -> None:
    """Make what is missing of the lab. What is there already stays as people have changed it, except that with
    `endpoints` the addresses of the lab's servers are brought up to date.

    Without `endpoints`, new rows get addresses at which nothing needs to answer.
    """
    at = endpoints or Endpoints("127.0.0.1:4461", "http://127.0.0.1:9000", Path("/srv/streamweave/posix-archive"))
    _people()
    storages = _storages(at, renew=endpoints is not None)
    instruments = _instruments(at, renew=endpoints is not None)
    for instrument, storage, cron_expression in SCHEDULES:
        pair = {"instrument": instruments[instrument], "default_storage_location": storages[storage]}
        if not HarvestSchedule.objects.filter(**pair).exists():
            HarvestSchedule.objects.create(**pair, cron_expression=cron_expression)
    _hooks(instruments[NMR])


def _people() -> None:
    if not User.objects.with_email(ADMIN[0]).exists():
        User.objects.create_superuser(*ADMIN)
    for email in USERS:
        if not User.objects.with_email(email).exists():
            User.objects.create_user(email, USER_PASSWORD)
    users = {user.email: user for user in User.objects.filter(email__in=USERS)}
    groups: dict[str, Group] = {}
    for name, (description, members) in GROUPS.items():
        groups[name], new = Group.objects.get_or_create(name=name, defaults={"description": description})
        if new:
            add_members(to=groups[name], members=[users[email] for email in members])
    for name, (description, members, member_groups) in PROJECTS.items():
        project, new = Project.objects.get_or_create(name=name, defaults={"description": description})
        if new:
            people: list[User | Group] = [users[email] for email in members]
            add_members(to=project, members=[*people, *(groups[group] for group in member_groups)])


def _storages(at: Endpoints, *, renew: bool) -> dict[str, StorageLocation]:
    host, _, share = at.smb, "", "archive"
    rows: dict[str, dict[str, Any]] = {
        POSIX_ARCHIVE: {"type": "posix", "connection_config": None, "base_path": str(at.posix)},
        S3_BUCKET: {
            "type": "s3",
            "connection_config": {
                "bucket": BUCKET,
                "region": "us-east-1",
                "endpoint_url": at.s3,
                "access_key_id": S3_KEYS[0],
                "secret_access_key": S3_KEYS[1],
            },
            "base_path": "instruments",
        },
        SMB_ARCHIVE: {
            "type": "cifs",
            "connection_config": {
                "host": host,
                "share": share,
                "domain": None,
                "username": ARCHIVE_USER[0],
                "password": ARCHIVE_USER[1],
            },
            "base_path": "/archive",
        },
    }
    storages = {}
    for name, values in rows.items():
        storages[name], new = StorageLocation.objects.get_or_create(name=name, defaults=values)
        if renew and not new:
            storages[name].connection_config = values["connection_config"]
            storages[name].base_path = values["base_path"]  # the whole lab may have been moved to another folder
            storages[name].save(update_fields=["connection_config", "secrets", "base_path"])
    return storages


def _instruments(at: Endpoints, *, renew: bool) -> dict[str, Instrument]:
    accounts = {}
    for name, (username, password) in ACCOUNTS.items():
        accounts[name], _ = ServiceAccount.objects.get_or_create(
            name=name, defaults={"username": username, "password": password}
        )
    instruments = {}
    for name, description, location, share, account, enabled in INSTRUMENTS:
        instruments[name], new = Instrument.objects.get_or_create(
            name=name,
            defaults={
                "description": description,
                "location": location,
                "cifs_host": at.smb,
                "cifs_share": share,
                "service_account": accounts[account] if account else None,
                "transfer_adapter": "rclone",
                "enabled": enabled,
                "min_age_seconds": 0,
            },
        )
        if renew and not new and instruments[name].cifs_host != at.smb:
            instruments[name].cifs_host = at.smb
            instruments[name].save(update_fields=["cifs_host", "paused_at", "paused_reason"])
    return instruments


def _hooks(nmr: Instrument) -> None:
    rows: tuple[dict[str, Any], ...] = (
        {
            "name": "Auto-assign file access on transfer",
            "description": "Lets the owner of an instrument's files see each of them.",
            "trigger": "post_transfer",
            "builtin_name": "access_assignment",
            "priority": 0,
        },
        {
            "name": "NMR metadata enrichment",
            "description": "Finds pulse program, solvent and nucleus; it has no rules yet.",
            "trigger": "post_transfer",
            "builtin_name": "metadata_enrichment",
            "instrument": nmr,
            "priority": 10,
        },
        {
            "name": "Skip zero-byte and temp files",
            "description": "Leaves empty and temporary files where they are.",
            "trigger": "pre_transfer",
            "builtin_name": "file_filter",
            "config": {"min_size_bytes": 1, "exclude_patterns": ["*.tmp", "*.lock", "~*"]},
            "priority": 0,
        },
    )
    for row in rows:
        HookConfig.objects.get_or_create(name=row["name"], defaults={"implementation": "builtin", **row})
