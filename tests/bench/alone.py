"""One step of a harvest without the others, in a process of its own, told as JSON.

`python -m tests.bench.alone walk INSTRUMENT` walks the instrument's share and counts.
`python -m tests.bench.alone copy INSTRUMENT FOLDER` reads all its files and writes them to the folder: connecting,
walking, reading (signatures checked) and writing are within the seconds; hashing, durability, verification, database
and the start of Python are not.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import django


def walk(source: Any) -> dict[str, Any]:
    with source:
        begun = time.perf_counter()
        entries = sum(1 for _ in source.walk())
        return {"seconds": time.perf_counter() - begun, "entries": entries}


def copy(source: Any, folder: Path) -> dict[str, Any]:
    begun = time.perf_counter()
    files = size_bytes = 0
    with source:
        for reading in source.read_many(source.walk()):
            path = folder / reading.path
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            try:
                for chunk in reading.chunks():
                    size_bytes += os.write(fd, chunk)
            finally:
                os.close(fd)
            files += 1
    return {"seconds": time.perf_counter() - begun, "files": files, "size_bytes": size_bytes}


def main() -> None:
    django.setup()
    from harvest.models import Instrument

    step, key, *rest = sys.argv[1:]
    source = Instrument.objects.select_related("service_account").get(pk=key).open_source()
    begun = time.process_time()
    told = walk(source) if step == "walk" else copy(source, Path(rest[0]))
    told["cpu_seconds"] = time.process_time() - begun
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
