"""The Celery application: everything it is told stands in the settings under `CELERY_`."""

from __future__ import annotations

import logging.config
import os
from typing import Any

import billiard.pool
from celery import Celery
from celery.signals import setup_logging, worker_shutting_down

from streamweave import broker
from streamweave.lib import shutdown

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "streamweave.settings")

broker.register()

# At a stop, billiard waits for results that its children may have sent: at every tenth of a second, 300 times. Some
# never come. What is lost with one is only a reminder.
billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = 30

app = Celery("streamweave")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@setup_logging.connect
def log_like_django(**kwargs: Any) -> None:
    """Workers and beat log as the web server does; while a receiver is connected, Celery sets up nothing of its own."""
    from django.conf import settings  # the settings are not there yet when this module is imported

    logging.config.dictConfig(settings.LOGGING)


@worker_shutting_down.connect
def stop_soon(**kwargs: Any) -> None:
    """Long tasks end at the next good place and give their files back, instead of holding up the stop."""
    shutdown.request()
