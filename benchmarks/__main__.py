"""``make bench``: speed beside others' in one run, as one table; ``make bench ROW=label`` one row.

``--quick`` takes toy sizes and shows that every row runs; its figures mean nothing. Give a COCO
folder with ``--root`` to load from and label on it; without one the generated shapes serve, drawn
at 512 pixels. ``--write docs/performance.md`` keeps the table of a whole run.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import annotation_files, training
from benchmarks.rows import ROWS, in_a_process_of_its_own, shapes
from benchmarks.table import HEADINGS, Row, Skipped, machine, markdown

PRINTED = ("annotations", "windows")  # have tables of their own
PAGE = """# Performance

Speed beside the tools that others use for the same work, measured side by side in one run: what
counts is the ratio, absolute figures hold for one machine. `make bench` makes this page anew,
`make bench ROW=label` prints one part of it.

{table}
{device}"""


def main() -> None:
    """Run them one after the other: side by side they would measure each other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join([*ROWS, *PRINTED])}")
    parser.add_argument("--root", type=Path, help="a folder with annotations/ and images/")
    parser.add_argument("--quick", action="store_true", help="toy sizes, to see that all runs")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="keep the table as Markdown")
    options = parser.parse_args()
    if unknown := set(options.rows) - {*ROWS, *PRINTED}:
        parser.error(f"there is no row {min(unknown)}: choose of {', '.join([*ROWS, *PRINTED])}")
    about = machine()
    console = Console(highlight=False, width=150)
    console.print(about)
    rows: list[Row] = []
    notes = [about, "`make bench`" + (f" on {options.root.name}" if options.root else "")]
    for name in options.rows or ROWS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        if name in PRINTED:
            _print(name, options.quick, options.root)
            continue
        try:
            made = in_a_process_of_its_own(name, options.quick, options.root)
            for row in made:  # what a later row cannot take away
                print("  " + " | ".join(row.cells()), file=sys.stderr, flush=True)
            rows += made
        except Skipped as reason:
            notes.append(f"{name} was skipped: {reason}")
    table = Table(*HEADINGS, expand=True)
    for row in rows:
        table.add_row(*row.cells())
    console.print(table)
    for note in notes[1:]:
        console.print(f"- {note}")
    if options.write:
        options.write.write_text(PAGE.format(table=markdown(rows, notes), device=_card_section()))


def _print(name: str, quick: bool, root: Path | None) -> None:
    if name == "windows":
        words = ["--rounds", "2"] if quick else []
        training.main(["--root", str(root or shapes(quick)), *words])
        return
    where = ["--root", str(root)] if root else []
    annotation_files.main([*where, *(["--count", "5000"] if quick else [])])


def _card_section() -> str:
    return (
        "## On a card\n\n`make gpu` measures on one CUDA card within six minutes what processors "
        "cannot show, and writes\n`docs/figures/gpu.json` as it goes.\n" + card_table()
    )


def card_table(figures: Path = Path("docs/figures/gpu.json")) -> str:
    """What the last ``make gpu`` found, as Markdown; nothing where there was none."""
    if not figures.is_file():
        return ""
    report = json.loads(figures.read_text(encoding="utf-8"))
    about = textwrap.fill(f"{report['card']}; {report['machine']}.", 100)
    lines = [f"\n{about}\n", "| part | found |", "|---|---|"]
    for part, found in report["parts"].items():
        for name, value in _flat(found):
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
            lines.append(f"| {part} | {name}: {text} |")
    return "\n".join(lines) + "\n"


def _flat(found: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in found.items():
        if isinstance(value, dict) and name != "kernels":
            yield from _flat(value, f"{before}{name}, ")
        elif not isinstance(value, dict):
            yield before + name, value


if __name__ == "__main__":
    main()
