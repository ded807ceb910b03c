"""Serve folders read-only over SMB 2 with impacket: `python -m harvest.demo.impacket_server CONFIG.json`.

The configuration names host, port, shares (name to folder) and users (log-in to password).
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from impacket.ntlm import compute_lmhash, compute_nthash
from impacket.smbserver import SimpleSMBServer


def main(arguments: list[str]) -> int:
    """Serve until the process is ended."""
    config = json.loads(Path(arguments[0]).read_text())
    server = SimpleSMBServer(listenAddress=config["host"], listenPort=config["port"])
    server.setSMB2Support(True)
    # Below this level impacket logs every read, and the hashes of log-ins.
    logging.getLogger("impacket").setLevel(logging.WARNING)
    for name, folder in config["shares"].items():
        server.addShare(name, folder, readOnly="yes")
    for number, (user, password) in enumerate(config["users"].items(), start=1000):
        server.addCredential(user, number, compute_lmhash(password), compute_nthash(password))
    server.start()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
