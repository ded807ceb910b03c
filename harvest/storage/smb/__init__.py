"""SMB shares: what instruments offer, and a place to keep files."""

from __future__ import annotations

import os

# How many seconds of silence smbprotocol bears before it asks the server for a sign of life; as many more, and it gives
# the connection up. Its own default of 600 lets a worker hang for 20 minutes when a cable is pulled. It is read when a
# connection is made.
os.environ.setdefault("SMB_EXPERIMENTAL_TRANSPORT_RECEIVE_TIMEOUT", "30")

from harvest.storage.smb.storage import SmbStorage

__all__ = ["SmbStorage"]
