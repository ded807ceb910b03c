from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Script = Callable[[str], str]


@pytest.fixture
def script_dir(tmp_path: Path, settings: Any) -> Path:
    folder = tmp_path / "scripts"
    folder.mkdir()
    settings.HOOK_SCRIPT_DIR = folder
    return folder


@pytest.fixture
def script(script_dir: Path) -> Script:
    """Makes a hook script of a source text and gives its script_path."""

    def make(source: str) -> str:
        path = script_dir / "hook.py"
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        path.chmod(0o644)
        return path.name

    return make
