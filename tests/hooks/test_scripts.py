from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hooks import scripts
from hooks.decisions import HookError
from tests.hooks.conftest import Script


def ended(pid: int) -> bool:
    """Whether nothing runs under this number any more; a zombie does not run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def pids_in(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir() if path.name.isdigit()]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "TIMEOUT_SECONDS", 2.0)


# --------------------------------------------------------------------------------------------------- what runs, how


def test_a_script_reads_the_question_and_writes_the_answer(script: Script) -> None:
    path = script("import json, sys; print(json.dumps({'got': json.load(sys.stdin)}))")
    assert json.loads(scripts.ask(path, b'{"a": "\\u00fc"}')) == {"got": {"a": "ü"}}


def test_a_long_question_and_a_long_answer_do_not_wait_for_each_other(script: Script) -> None:
    path = script("import sys; print('x' * 3_000_000); print(len(sys.stdin.read()))")
    assert scripts.ask(path, b"y" * 3_000_000).endswith(b"\n3000000\n")


def test_a_script_sees_nothing_of_our_environment(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "canary-1")
    monkeypatch.setenv("DATABASE_URL", "canary-2")
    monkeypatch.setenv("PYTHONPATH", "/canary-3")
    path = script("import json, os, sys; print(json.dumps([dict(os.environ), sys.argv, sys.path, os.getcwd()]))")
    environment, arguments, import_path, folder = json.loads(scripts.ask(path, b""))
    assert environment.keys() <= {"PATH", "LANG", "LC_CTYPE"}
    assert len(arguments) == 1
    assert "/canary-3" not in import_path
    assert Path(folder) not in (Path.cwd(), Path(arguments[0]).parent)


def test_its_folder_is_empty_and_gone_afterwards(script: Script) -> None:
    path = script(
        """
        import os, pathlib
        assert not os.listdir()
        pathlib.Path("left").write_text("x")
        print(os.getcwd())
        """
    )
    assert not Path(scripts.ask(path, b"").decode().strip()).exists()


def test_no_file_of_ours_is_open_in_it(script: Script, tmp_path: Path) -> None:
    path = script("import os; print(sorted(int(fd) for fd in os.listdir('/proc/self/fd')))")
    with (tmp_path / "ours").open("w") as ours:
        os.set_inheritable(ours.fileno(), True)
        numbers = json.loads(scripts.ask(path, b""))
    assert numbers[:3] == [0, 1, 2]
    assert len(numbers) == 4  # and the listing itself


# ------------------------------------------------------------------------------------------------------ what fails


def test_an_exception_in_a_script_is_told_with_the_end_of_its_traceback(script: Script) -> None:
    path = script("raise LookupError('no such solvent')")
    with pytest.raises(HookError, match=r"ended with status 1: (?s:.*)LookupError: no such solvent"):
        scripts.ask(path, b"")


def test_a_killed_script_is_told_with_the_signal(script: Script) -> None:
    path = script("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(HookError, match="ended by signal 11"):
        scripts.ask(path, b"")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "source",
    [
        "while True: pass",
        "import time; time.sleep(600)",
        "import os, time; os.close(1); os.close(2); time.sleep(600)",
        "import signal, time\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\ntime.sleep(600)",
        "import sys\nwhile True: print('x' * 1000, file=sys.stderr)",
    ],
    ids=["loops", "sleeps", "closes its output", "ignores signals", "complains for ever"],
)
def test_a_script_that_does_not_end_is_killed(script: Script, source: str) -> None:
    with pytest.raises(HookError, match="took more than 2 s and was killed"):
        scripts.ask(script(source), b"")


def test_a_script_that_writes_without_end_is_killed(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    path = script("import sys\nfor _ in range(100): sys.stdout.write('x' * 1_000_000)")  # 100 MB
    with pytest.raises(HookError, match=f"wrote more than {scripts.MAX_ANSWER_BYTES} bytes and was killed"):
        scripts.ask(path, b"")


def test_what_a_script_complains_is_cut_to_its_end(script: Script) -> None:
    path = script("import sys; sys.stderr.write('x' * 1_000_000 + 'the end'); sys.exit(3)")
    with pytest.raises(HookError) as caught:
        scripts.ask(path, b"")
    assert str(caught.value).endswith("the end")
    assert len(str(caught.value)) < 2200


def test_a_script_that_eats_memory_meets_its_limit(script: Script) -> None:
    path = script("hog = []\nwhile True: hog.append(bytearray(50 << 20))")
    with pytest.raises(HookError, match="MemoryError"):
        scripts.ask(path, b"")


def test_a_script_that_fills_the_disk_meets_its_limit(script: Script) -> None:
    path = script(
        """
        import os, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with open("big", "wb") as file:
            while True: file.write(bytes(1 << 20))
        """
    )
    with pytest.raises(HookError, match="File too large"):
        scripts.ask(path, b"")


def test_a_script_that_opens_too_many_files_meets_its_limit(script: Script) -> None:
    with pytest.raises(HookError, match="Too many open files"):
        scripts.ask(script("files = [open('/dev/null') for _ in range(100)]"), b"")


def test_a_script_that_uses_up_the_processor_is_told_so(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = scripts._limits()
    monkeypatch.setattr(scripts, "_limits", lambda: {**limits, "CPU": 1})
    with pytest.raises(HookError, match="used up its processor time"):
        scripts.ask(script("while True: pass"), b"")


def test_the_limit_of_processes_leaves_room_for_the_script(script: Script) -> None:
    limits = scripts._limits()
    assert limits["NPROC"] > scripts.MAX_PROCESSES
    path = script("import resource; print(resource.getrlimit(resource.RLIMIT_NPROC)[0])")
    assert int(scripts.ask(path, b"")) >= scripts.MAX_PROCESSES


def test_a_script_of_an_ordinary_account_cannot_fork_without_end() -> None:
    """The kernel does not hold root to the limit of processes, so root runs this as somebody else."""
    as_other = ["setpriv", "--reuid=61234", "--regid=61234", "--clear-groups"] if os.getuid() == 0 else []
    again = "import os, sys; os.execv(sys.executable, [sys.executable, '-I', '-c', ''])"
    for python in (sys.executable, "/usr/bin/python3"):
        if not subprocess.run([*as_other, python, "-I", "-c", again], capture_output=True, check=False).returncode:
            break
    else:
        pytest.skip("no Python that another account may run")
    source = """
        import os, time
        try:
            while True:
                if not os.fork(): time.sleep(600)
        except BlockingIOError:
            print("enough")
    """
    limits = scripts._limits() if not as_other else {"NPROC": 20}
    held, lifeline = os.pipe()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        bomb, warden = Path(folder, "bomb.py"), Path(folder, "warden.py")
        bomb.write_text(textwrap.dedent(source))
        warden.write_bytes(scripts._WARDEN.read_bytes())
        command = [*as_other, python, "-I", str(warden), str(held), str(bomb), json.dumps(limits)]
        try:
            done = subprocess.run(command, pass_fds=[held], capture_output=True, text=True, timeout=60, check=False)
        finally:
            os.close(held)
            os.close(lifeline)
    assert (done.returncode, done.stdout) == (0, "enough\n"), done.stderr


# -------------------------------------------------------------------------------------------- nothing of it is left


DAEMONS = """
import os, pathlib, sys, time
folder = pathlib.Path({folder!r})
for _ in range({count}):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:  # twice, so that its parent is gone, as daemons do it
            (folder / str(os.getpid())).touch()
            time.sleep(600)
        os._exit(0)
while len(list(folder.iterdir())) < {count}: time.sleep(0.01)
{rest}
"""


@pytest.mark.parametrize("rest", ["print('{}')", "while True: pass", "print('x' * 10_000_000)", "os._exit(7)"])
@pytest.mark.usefixtures("quick")
def test_daemons_that_a_script_started_are_dead_however_it_ends(script: Script, tmp_path: Path, rest: str) -> None:
    folder = tmp_path / "pids"
    folder.mkdir()
    path = script(DAEMONS.format(folder=str(folder), count=20, rest=rest))
    try:
        scripts.ask(path, b"")
    except HookError:
        assert rest != "print('{}')"
    pids = pids_in(folder)
    assert len(pids) == 20
    assert all(ended(pid) for pid in pids)


def test_a_script_does_not_outlive_a_worker_that_is_killed(script: Script, script_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pids"
    folder.mkdir()
    path = script(DAEMONS.format(folder=str(folder), count=3, rest="time.sleep(600)"))
    worker = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from django.conf import settings; settings.configure(HOOK_SCRIPT_DIR=sys.argv[1])\n"
            "from hooks import scripts; scripts.ask(sys.argv[2], b'')",
            str(script_dir),
            path,
        ],
        cwd=Path(__file__).parents[2],
    )
    assert eventually(lambda: len(pids_in(folder)) == 3)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert eventually(lambda: all(ended(pid) for pid in pids_in(folder)))


def test_a_caller_that_is_interrupted_leaves_nothing_running(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "pids"
    folder.mkdir()
    path = script(DAEMONS.format(folder=str(folder), count=3, rest="time.sleep(600)"))

    def interrupted(*args: Any) -> Any:
        assert eventually(lambda: len(pids_in(folder)) == 3)
        raise KeyboardInterrupt

    monkeypatch.setattr(scripts, "_read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        scripts.ask(path, b"")
    assert all(ended(pid) for pid in pids_in(folder))


# --------------------------------------------------------------------------------------------------- which scripts


def test_without_a_folder_there_are_no_scripts(settings: Any) -> None:
    settings.HOOK_SCRIPT_DIR = None
    with pytest.raises(scripts.ScriptPathError, match="switched off"):
        scripts.find("hook.py")
    with pytest.raises(HookError, match="switched off"):
        scripts.ask("hook.py", b"")


def test_a_script_in_a_subfolder_is_found(script_dir: Path) -> None:
    (script_dir / "nmr").mkdir()
    (script_dir / "nmr" / "solvent.py").touch(mode=0o644)
    assert scripts.find("nmr/solvent.py") == script_dir.resolve() / "nmr" / "solvent.py"


@pytest.mark.parametrize(
    "path", ["../outside.py", "/bin/sh", "nmr/../../outside.py", "", ".", "./hook.py", "a//b.py", "a\0b", "~/x.py"]
)
def test_a_path_that_leads_elsewhere_is_refused(script_dir: Path, path: str) -> None:
    (script_dir.parent / "outside.py").touch(mode=0o644)
    with pytest.raises(scripts.ScriptPathError):
        scripts.find(path)


def test_links_folders_and_files_that_anybody_may_write_are_refused(script_dir: Path) -> None:
    outside = script_dir.parent / "outside.py"
    outside.touch(mode=0o644)
    (script_dir / "link.py").symlink_to(outside)
    (script_dir / "elsewhere").symlink_to(script_dir.parent)
    (script_dir / "loop.py").symlink_to(script_dir / "loop.py")
    (script_dir / "folder").mkdir()
    os.mkfifo(script_dir / "pipe")
    (script_dir / "open.py").touch()
    (script_dir / "open.py").chmod(0o666)
    for path, why in {
        "link.py": "symbolic link",
        "elsewhere/outside.py": "symbolic link",
        "loop.py": "cannot be read",
        "folder": "not a regular file",
        "pipe": "not a regular file",
        "open.py": "written by everybody",
        "missing.py": "is not in the folder",
    }.items():
        with pytest.raises(scripts.ScriptPathError, match=why):
            scripts.find(path)
