"""`manage.py demo`: the demonstration lab with all its servers and processes, in a folder of its own, on SQLite."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harvest.demo.local_server import free_ports
from tests.journeys.processes import Process, environment, manage, processes_of

NMR = "Bruker AVANCE III 600 MHz NMR"
NMR_FILES = {
    "20260115_glucose_1H/acqus": 998,
    "20260115_glucose_1H/fid": 8192,
    "20260115_glucose_1H/pdata/1/1r": 8192,
    "20260115_glucose_1H/pdata/1/procs": None,  # the one whose size is not told anywhere
    "20260201_alanine_13C/acqus": 470,
    "20260201_alanine_13C/fid": 16384,
    "20260201_alanine_13C/pdata/1/1r": 8192,
    "20260210_ethanol_COSY/acqus": 485,
    "20260210_ethanol_COSY/fid": 32768,
    "20260210_ethanol_COSY/pdata/1/1r": 8192,
}


class DemoLab:
    """A folder for the demonstration, and the commands that are given beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.posix = folder / "storage" / "posix-archive"
        self.env = environment(DATABASE_URL=f"sqlite:///{folder}/db.sqlite3")
        [self.port] = free_ports(1)

    def command(self, *options: str) -> list[str]:
        command = [sys.executable, "manage.py", "demo", "--directory", str(self.folder), "--port", str(self.port)]
        return [*command, *options]

    def once(self) -> tuple[int, str]:
        """Exit status and output of `demo --once`."""
        with Process(self.command("--once"), self.env, self.folder.with_suffix(".once")) as demo:
            return demo.wait(seconds=150), demo.output

    def ask(self, code: str) -> Any:
        """Run code in `manage.py shell`, with nothing but DATABASE_URL set; what it assigns to `answer`, by JSON."""
        script = f"import json\n{code}\nprint('ANSWER', json.dumps(answer, default=str))"
        done = manage("shell", "-v", "0", "-c", script, env=self.env)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.rpartition("ANSWER ")[2])

    def harvest(self, number: int = 0) -> dict[str, Any]:
        """Trigger a schedule (they are in the order of seeding) and wait for the running worker to do it."""
        asked = self.ask(
            "from harvest.models import *; from harvest.tasks import trigger\n"
            f"answer = str(trigger(HarvestSchedule.objects.order_by('created_at')[{number}]).pk)"
        )
        code = (
            "import time; from harvest.models import *; deadline = time.monotonic() + 60\n"
            f"run = HarvestRun.objects.get(pk={asked!r})\n"
            "while run.ended_at is None and time.monotonic() < deadline: time.sleep(0.1); run.refresh_from_db()\n"
            "answer = {f: getattr(run, f) for f in ('status', 'error_message', 'files_seen', 'files_discovered',"
            " 'files_completed', 'files_skipped', 'files_failed')}"
        )
        run: dict[str, Any] = self.ask(code)
        return run


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A folder that other accounts can reach, with a short path."""
    folder = Path(tempfile.mkdtemp(prefix="streamweave-demo-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def fresh(home: Path) -> tuple[DemoLab, int, str]:
    """The lab after its first `demo --once`, with exit status and output of that."""
    lab = DemoLab(home / "lab")
    return lab, *lab.once()


@pytest.fixture(scope="module")
def moved(home: Path, fresh: tuple[DemoLab, int, str]) -> DemoLab:
    """The lab as it was after its first start, in another folder."""
    shutil.copytree(fresh[0].folder, home / "moved", ignore=shutil.ignore_patterns("*.sock"))
    return DemoLab(home / "moved")


@pytest.fixture(scope="module")
def running(fresh: tuple[DemoLab, int, str], moved: DemoLab) -> Iterator[DemoLab]:
    """The same lab, started a second time, and serving; Ctrl-C ends it."""
    lab, _, _ = fresh
    with Process(lab.command(), lab.env, lab.folder.with_suffix(".serving")) as demo:
        demo.await_output("Ctrl-C stops everything")
        yield lab
        demo.interrupt()
        assert demo.wait() == 0, demo.output
        assert processes_of(lab.folder) == {}


def test_the_first_start_harvests_everything_and_ends_with_nothing_left_running(
    fresh: tuple[DemoLab, int, str],
) -> None:
    lab, status, output = fresh
    assert status == 0, output
    rows = [line for line in output.splitlines() if " of " in line]
    assert [line.split("  ")[0] for line in rows] == [
        NMR,
        NMR,
        "Waters Acquity UPLC-MS",
        "Thermo Orbitrap Exploris 480",
    ]
    for heading in ("discovered", "completed", "skipped", "failed", "bytes", "verified", "seconds"):
        assert heading in output
    assert all("10 of 10" in line and "84,186" in line for line in rows[:2])
    assert processes_of(lab.folder) == {}
    stored = {
        path.relative_to(lab.posix / NMR).as_posix(): path for path in (lab.posix / NMR).rglob("*") if path.is_file()
    }
    assert stored.keys() == NMR_FILES.keys()
    for path, size in NMR_FILES.items():
        assert stored[path].read_bytes() == (lab.folder / "shares/nmr" / path).read_bytes()
        assert size is None or stored[path].stat().st_size == size


def test_it_serves_and_commands_beside_it_need_nothing_but_the_database(running: DemoLab) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{running.port}/health", timeout=10) as answer:
        assert json.load(answer) == {"status": "ok"}
    code = (
        "from harvest.models import *\n"
        "answer = [[account.username, account.password] for account in ServiceAccount.objects.order_by('created_at')]\n"
        "answer += [l.config_in_clear.get('secret_access_key', l.config_in_clear.get('password'))"
        " for l in StorageLocation.objects.order_by('created_at')]\n"
        "with Instrument.objects.get(cifs_share='nmr').open_source() as share:\n"
        "    answer.append(len(list(share.walk())))"
    )
    *accounts, no_secret, s3_secret, smb_secret, files_on_the_share = running.ask(code)
    assert [username for username, _ in accounts] == ["svc-nmr", "svc-hplc", "svc-ms"]
    assert all(password and password != "****" for _, password in accounts)
    assert (no_secret, s3_secret, smb_secret) == (None, "devsecret", "devpass")
    assert files_on_the_share == 10
    database = (running.folder / "db.sqlite3").read_bytes()
    assert not any(password.encode() in database for _, password in accounts)
    assert b"devsecret" not in database


def test_the_rows_are_those_of_the_demonstration(running: DemoLab) -> None:
    answer = running.ask(
        "from access.models import *; from harvest.models import *; from hooks.models import HookConfig\n"
        "def rows(model, *fields, by='created_at'): return list(model.objects.order_by(by).values_list(*fields))\n"
        "answer = {\n"
        "'accounts': rows(ServiceAccount, 'name'),\n"
        "'instruments': rows(Instrument, 'name', 'location', 'cifs_share', 'cifs_base_path', 'transfer_adapter',"
        " 'transfer_config', 'pid', 'enabled', 'service_account__username', 'storage_folder', 'min_age_seconds'),\n"
        "'storages': [[l.name, l.type, l.base_path, l.connection_config, l.enabled]"
        " for l in StorageLocation.objects.order_by('created_at')],\n"
        "'schedules': rows(HarvestSchedule, 'instrument__name', 'default_storage_location__name', 'cron_expression',"
        " 'enabled'),\n"
        "'tasks': HarvestSchedule.objects.filter(periodic_task__enabled=True).count(),\n"
        "'hooks': rows(HookConfig, 'name', 'trigger', 'implementation', 'builtin_name', 'script_path', 'webhook_url',"
        " 'config', 'instrument__name', 'priority', 'enabled'),\n"
        "'users': rows(User, 'email', 'is_active', 'is_superuser', 'is_verified', 'role', 'deleted_at'),\n"
        "'logins': [User.objects.get(email=e).check_password(p) for e, p in [('admin@example.com', 'adminpassword'),"
        " *[(u + '@example.com', 'devpass123!') for u in"
        " ('chemist', 'proteomics', 'em-operator', 'bioinformatics')]]],\n"
        "'groups': {g.name: sorted(g.memberships.values_list('user__email', flat=True))"
        " for g in Group.objects.order_by('created_at')},\n"
        "'projects': {p.name: [sorted(p.memberships.filter(group=None).values_list('user__email', flat=True)),"
        " sorted(p.memberships.filter(user=None).values_list('group__name', flat=True))]"
        " for p in Project.objects.order_by('created_at')},\n"
        "}"
    )
    assert len(answer["accounts"]) == 3
    rclone = ["/", "rclone", None, None]
    assert answer["instruments"] == [
        [NMR, "Chemistry Building, Room 102", "nmr", *rclone, True, "svc-nmr", NMR, 0],
        ["Waters Acquity UPLC-MS", "Analytical Core, Room 210", "hplc", *rclone, True, "svc-hplc",
         "Waters Acquity UPLC-MS", 0],
        ["Thermo Orbitrap Exploris 480", "Proteomics Core, Room 315", "ms", *rclone, True, "svc-ms",
         "Thermo Orbitrap Exploris 480", 0],
        ["FEI Titan Themis 300 TEM", "Electron Microscopy Facility, Basement", "tem", *rclone, False, None,
         "FEI Titan Themis 300 TEM", 0],
    ]  # fmt: skip
    local, s3, archive = answer["storages"]
    assert local == ["Local POSIX archive", "posix", str(running.posix), None, True]
    assert [s3[:3], s3[4]] == [["S3 dev bucket", "s3", "instruments"], True]
    endpoint_url = s3[3].pop("endpoint_url")
    assert endpoint_url.startswith("http://127.0.0.1:")
    assert s3[3] == {
        "bucket": "instruments", "region": "us-east-1", "access_key_id": "devkey", "secret_access_key": "****",
    }  # fmt: skip
    assert [archive[:3], archive[4]] == [["Samba archive share", "cifs", "/archive"], True]
    assert archive[3].pop("host")
    assert archive[3] == {"share": "archive", "domain": None, "username": "devuser", "password": "****"}
    assert answer["schedules"] == [
        [NMR, "Local POSIX archive", "0 1 * * *", True],
        [NMR, "S3 dev bucket", "0 2 * * *", True],
        ["Waters Acquity UPLC-MS", "Local POSIX archive", "0 4 * * *", True],
        ["Thermo Orbitrap Exploris 480", "Samba archive share", "0 0 * * *", True],
    ]
    assert answer["tasks"] == 4
    assert answer["hooks"] == [
        ["Auto-assign file access on transfer", "post_transfer", "builtin", "access_assignment", None, None, None,
         None, 0, True],
        ["NMR metadata enrichment", "post_transfer", "builtin", "metadata_enrichment", None, None, None, NMR, 10, True],
        ["Skip zero-byte and temp files", "pre_transfer", "builtin", "file_filter", None, None,
         {"min_size_bytes": 1, "exclude_patterns": ["*.tmp", "*.lock", "~*"]}, None, 0, True],
    ]  # fmt: skip
    assert answer["users"] == [
        ["admin@example.com", True, True, False, "admin", None],
        *(
            [f"{name}@example.com", True, False, False, "user", None]
            for name in ("chemist", "proteomics", "em-operator", "bioinformatics")
        ),
    ]
    assert answer["logins"] == [True] * 5
    assert list(answer["groups"]) == [
        "Chemistry & Chemical Biology",
        "Proteomics Core",
        "EM Facility",
        "Analytical Core",
    ]
    assert answer["groups"]["Chemistry & Chemical Biology"] == ["bioinformatics@example.com", "chemist@example.com"]
    assert [name for name, members in answer["groups"].items() if "chemist@example.com" in members] == [
        "Chemistry & Chemical Biology", "Analytical Core",
    ]  # fmt: skip
    kinase, her2, gold, omics = answer["projects"].values()
    assert list(answer["projects"]) == [
        "Kinase Inhibitor Fragment Screen", "HER2 Phosphoproteome Profiling",
        "Gold Nanoparticle Structure Determination", "Multi-omics Cancer Biomarker Discovery",
    ]  # fmt: skip
    assert "chemist@example.com" in kinase[0]
    chemists = {"Chemistry & Chemical Biology", "Analytical Core"}
    assert "chemist@example.com" not in omics[0]
    assert len(chemists & set(omics[1])) == 1
    for project in (her2, gold):
        assert "chemist@example.com" not in project[0]
        assert not chemists & set(project[1])


def test_filtered_files_enriched_files_and_a_third_harvest(running: DemoLab) -> None:
    """What a visitor does with the NMR: see files skipped, add a rule, clear everything and harvest again, twice."""
    (running.folder / "shares/nmr/scratch.tmp").write_text("temp data\n")
    (running.folder / "shares/nmr/empty.txt").touch()

    run = running.harvest()

    assert run == {
        "status": "completed", "error_message": None, "files_seen": 12, "files_discovered": 2, "files_completed": 0,
        "files_skipped": 2, "files_failed": 0,
    }  # fmt: skip
    files = (
        "from harvest.models import *\n"
        "answer = {f.filename if f.source_path == f.filename else f.source_path:"
        " [f.size_bytes, f.xxhash is None, f.sha256 is None, f.metadata, [t.status for t in f.transfers.all()]]"
        " for f in FileRecord.objects.filter(instrument__cifs_share='nmr')}"
    )
    found = running.ask(files)
    assert len(found) == 12
    assert found["scratch.tmp"] == [10, True, True, {}, ["skipped"]]
    assert found["empty.txt"] == [0, True, True, {}, ["skipped"]]
    assert found["20260201_alanine_13C/acqus"] == [470, False, False, {}, ["completed", "completed"]]

    pattern = r"^(?P<date>\d{8})_(?P<compound>[^_/]+)_(?P<nucleus>[^/]+)/"
    deleted = running.ask(
        "from harvest.models import *; from hooks.models import HookConfig\n"
        "hook = HookConfig.objects.get(name='NMR metadata enrichment')\n"
        f"hook.config = {{'rules': [{{'source': 'path', 'pattern': {pattern!r}}}]}}\n"
        "hook.full_clean(); hook.save()\n"
        "answer = [FileTransfer.objects.all().delete()[0], FileRecord.objects.all().delete()[0] > 0]"
    )
    assert deleted == [51, True]
    for folder in running.posix.iterdir():  # what `rm -rf *` takes
        if not folder.name.startswith("."):
            shutil.rmtree(folder)

    run = running.harvest()

    assert (run["status"], run["files_completed"], run["files_skipped"]) == ("completed", 10, 2), run
    found = running.ask(files)
    assert found["20260201_alanine_13C/pdata/1/1r"][3] == {"date": "20260201", "compound": "alanine", "nucleus": "13C"}
    assert found["20260115_glucose_1H/pdata/1/procs"][3] == {"date": "20260115", "compound": "glucose", "nucleus": "1H"}
    assert found["20260210_ethanol_COSY/fid"][3] == {"date": "20260210", "compound": "ethanol", "nucleus": "COSY"}
    assert (found["scratch.tmp"][3], found["empty.txt"][3]) == ({}, {})
    assert (running.posix / NMR / "20260115_glucose_1H/acqus").stat().st_size == 998

    # Again: nothing new, no second row. And the bucket, which nobody emptied, takes its own files back as they are.
    run = running.harvest()
    assert (run["status"], run["files_discovered"], run["files_completed"]) == ("completed", 2, 0), run
    assert len(running.ask(files)) == 12
    run = running.harvest(1)
    assert (run["status"], run["files_completed"], run["files_failed"]) == ("completed", 10, 0), run


def test_a_lab_that_was_moved_goes_on_where_it_was_and_says_which_copies_are_not_as_they_should_be(
    fresh: tuple[DemoLab, int, str], moved: DemoLab
) -> None:
    arks = "from harvest.models import *; answer = sorted(FileRecord.objects.values_list('persistent_id', flat=True))"
    before = moved.ask(arks)
    (moved.posix / NMR / "20260201_alanine_13C/fid").unlink()
    damaged = moved.posix / NMR / "20260210_ethanol_COSY/fid"
    damaged.write_bytes(damaged.read_bytes()[::-1])

    status, output = moved.once()

    assert status == 1, output
    rows = [re.split(r" {2,}", line) for line in output.splitlines() if " of " in line]
    assert [row[2:5] for row in rows] == [["0"] * 3] * 4, output  # discovered, completed, skipped
    assert [row[-2] for row in rows] == ["8 of 10", "10 of 10", "24 of 24", "5 of 5"]
    assert "20260201_alanine_13C/fid" in output
    assert "20260210_ethanol_COSY/fid: the copy differs" in output
    assert "CommandError" in output
    assert "Traceback" not in output
    assert moved.ask(arks) == before
    assert processes_of(moved.folder) == {}


WITHOUT_SAMBA = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "streamweave.settings"
from django.core.management import execute_from_command_line
from harvest.demo.servers import SambaServer
SambaServer.programs = ("a program that nobody has",)
execute_from_command_line(sys.argv)
"""


def test_without_samba_the_shares_are_read_and_nothing_is_stored_over_smb(home: Path) -> None:
    lab = DemoLab(home / "without-samba")
    [python, _, *arguments] = lab.command("--once")
    with Process([python, "-c", WITHOUT_SAMBA, *arguments], lab.env, home / "without-samba.out") as demo:
        assert demo.wait(seconds=150) == 0, demo.output
    assert demo.output.count("Samba is not installed") == 1
    rows = [re.split(r" {2,}", line) for line in demo.output.splitlines() if " of " in line]
    assert [row[-2] for row in rows] == ["10 of 10", "10 of 10", "24 of 24"]
    archive = "StorageLocation.objects.get(type='cifs')"
    code = f"from harvest.models import *; answer = [{archive}.enabled, {archive}.schedules.get().enabled]"
    assert lab.ask(code) == [True, True]


def test_a_signal_stops_all_that_it_started(home: Path) -> None:
    lab = DemoLab(home / "a folder to stop")
    with Process(lab.command("--no-harvest"), lab.env, home / "stopped.out") as demo:
        demo.await_output("Ctrl-C stops everything")
        assert "admin@example.com  adminpassword" in demo.output
        assert len(processes_of(lab.folder)) >= 6  # itself, smbd, weed, web server, worker, beat
        demo.interrupt(signal.SIGTERM)
        assert demo.wait() == 0, demo.output
    assert "Stopped." in demo.output
    assert processes_of(lab.folder) == {}


def test_a_second_one_on_the_same_folder_is_refused_and_harms_nobody(running: DemoLab) -> None:
    status, output = DemoLab(running.folder).once()
    assert status == 1
    assert "runs already" in output
    assert "Traceback" not in output
    with urllib.request.urlopen(f"http://127.0.0.1:{running.port}/health", timeout=10) as answer:
        assert json.load(answer) == {"status": "ok"}
