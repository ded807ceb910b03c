"""manage.py diagram"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from harvest.management.asked import FOUND_WRONG, PlainCommand
from harvest.models.states import ENDS, TRANSITIONS, WAY, State, status

DEFAULT = Path("docs/states.md")

INTRODUCTION = """# The states of a transfer

This page is generated from `harvest/models/states.py`; `make check` compares it. To write it anew: `manage.py diagram`.

A transfer is the way of one version of a file to one storage. Its state says what is already true; a lease says who is
working on it; an error says why it has not gone further. No state means “busy” or “failed”, so nothing can be stuck in
one.
"""


class Command(PlainCommand):
    help = """Writes the diagram and the table of the states of a transfer, generated from the code, to FILE.

With --check nothing is written: exit status 0 if the file is what would be written, 1 if not."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", nargs="?", type=Path, default=DEFAULT, metavar="FILE", help=f"default: {DEFAULT}")
        parser.add_argument("--check", action="store_true", help="compare only")

    def handle(self, *args: Any, **options: Any) -> None:
        file: Path = options["file"]
        text = page()
        if not options["check"]:
            file.write_text(text, encoding="utf-8")
            self.say(f"{file} is written.")
            return
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            raise CommandError(
                f"{file} is not what the code says. Run `manage.py diagram {file}` and look at the difference.",
                returncode=FOUND_WRONG,
            )


def page() -> str:
    """The whole page, in Markdown."""
    return "\n".join([INTRODUCTION, *_diagram(), "", *_states(), "", *_words(), "", *_steps(), ""])


def _diagram() -> list[str]:
    """A state diagram as Mermaid draws it (https://mermaid.js.org/syntax/stateDiagram.html)."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {WAY[0].value}"]
    lines += [f"    {before.value} --> {after.value}: {when}" for before, after, when in TRANSITIONS]
    lines += [f"    {state.value} --> [*]" for state in (WAY[-1], *ENDS)]
    return [*lines, "```"]


def _states() -> list[str]:
    lines = ["## States", "", "| state | what is true | public word |", "|---|---|---|"]
    for state in State:
        words = {status(state.value, leased=False, given_up=False): ""}
        words.setdefault(status(state.value, leased=True, given_up=False), "while a worker has it")
        words.setdefault(status(state.value, leased=False, given_up=True), "when it is given up")
        told = "; ".join(f"`{word.value}` {when}".strip() for word, when in words.items())
        lines.append(f"| `{state.value}` | {state.label} | {told} |")
    return lines


def _words() -> list[str]:
    way = " → ".join(f"`{state.value}`" for state in WAY)
    ends = ", ".join(f"`{state.value}`" for state in ENDS)
    return [f"The way: {way}. The ends beside it: {ends}."]


def _steps() -> list[str]:
    lines = ["## Steps", "", "| before | after | when |", "|---|---|---|"]
    return lines + [f"| `{before.value}` | `{after.value}` | {when} |" for before, after, when in TRANSITIONS]
