"""The project: settings, addresses, Celery, and in `lib` what every app may use."""

import os

# smbprotocol waits 600 s for an answer and declares the connection dead after twice that: a file server that stops
# answering would hold a worker for twenty minutes. It reads this variable when a connection is made and offers no other
# way, so it is set here, before anything can import it.
os.environ.setdefault("SMB_EXPERIMENTAL_TRANSPORT_RECEIVE_TIMEOUT", "30")

from streamweave.celery import app as celery_app

__all__ = ["celery_app"]
