"""What the Celery application does with its settings, in processes of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

BASE_DIR = Path(__file__).parents[2]


@pytest.mark.parametrize("listening", [False, True], ids=["nobody listens", "somebody listens and says nothing"])
@pytest.mark.timeout(60)
def test_publishing_to_a_broker_that_is_not_there_fails_instead_of_waiting_for_ever(tmp_path, listening):
    with socket.create_server(("127.0.0.1", 0)) if listening else socket.socket() as broker:
        if not listening:
            broker.bind(("127.0.0.1", 0))
        environment = {
            "CELERY_BROKER_URL": f"redis://127.0.0.1:{broker.getsockname()[1]}/0",
            "STREAMWEAVE_DATA_DIR": str(tmp_path),
            "DJANGO_SETTINGS_MODULE": "streamweave.settings",
        }
        code = "from streamweave import celery_app; celery_app.send_task('anything')"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=BASE_DIR, env=os.environ | environment, capture_output=True, text=True
        )
    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1].startswith("kombu.exceptions.OperationalError: ")


def test_a_message_waits_in_the_embedded_broker_until_a_worker_comes(tmp_path):
    environment = {"STREAMWEAVE_DATA_DIR": str(tmp_path), "DJANGO_SETTINGS_MODULE": "streamweave.settings"}
    environment |= {"CELERY_BROKER_URL": ""}
    code = "from streamweave import celery_app; celery_app.send_task('anything')"
    subprocess.run([sys.executable, "-c", code], cwd=BASE_DIR, env=os.environ | environment, check=True)
    assert len(list((tmp_path / "broker" / "queue").glob("*.celery.msg"))) == 1


def test_beat_reminds_of_what_is_due_and_of_nothing_else(settings):
    assert set(settings.CELERY_BEAT_SCHEDULE) == {"tick", "sweep"}
    assert settings.CELERY_RESULT_EXPIRES is None  # else Celery adds an entry of its own
    assert settings.CELERY_TASK_ACKS_LATE
    assert settings.CELERY_TASK_REJECT_ON_WORKER_LOST
