"""What a run of ``elsa-ext bench op`` or ``module`` means: a table for a page.

``python benchmarks/summary.py FILE`` reads what ``--json FILE`` has written, and prints in Markdown, a column per
problem: median times, and how many times as long as ours others take; the share of torch.mm's rate, forward + backward
over forward, and memory beyond inputs and results.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Rows = dict[tuple[str, str], dict[str, Any]]
FORWARD, BACKWARD = "forward", "forward + backward"
OURS = "elsa_ext"


def by_row(comparison: dict[str, Any]) -> Rows:
    """Return the rows of a comparison by contender and direction."""
    return {(row["contender"], row["direction"]): row for row in comparison["rows"]}


def figures(number: float) -> str:
    """Show three figures, or all of those before the point."""
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"


def times(columns: list[Rows], direction: str) -> Iterator[list[str]]:
    """Yield a line per contender, with the name that it has in most columns' first, or none if nobody was timed."""
    names = {key: row["name"] for rows in reversed(columns) for (key, where), row in rows.items() if where == direction}
    for key in dict.fromkeys(key for rows in columns for key, where in rows if where == direction):
        cells = []
        for rows in columns:
            row = rows.get((key, direction))
            ratio = "" if row is None or row["ours"] else f" ({figures(row['ratio'])} ×)"
            cells.append("" if row is None else f"{figures(row['median_ms'])} ms{ratio}")
        yield [f"**{names[key]}**" if key == OURS else names[key], *cells]


def shares(columns: list[Rows], floors: list[dict[str, float]]) -> Iterator[list[str]]:
    """Yield what is no time."""
    pairs = list(zip(columns, floors, strict=True))
    for direction in (FORWARD, BACKWARD):
        if all((OURS, direction) in rows for rows in columns):
            rates = [rows[OURS, direction]["gfma_per_s"] / floor["gfma_per_s"] for rows, floor in pairs]
            yield [f"{direction}: rate of multiply-adds over that of torch.mm", *(f"{rate:.2f}" for rate in rates)]
    if all((OURS, BACKWARD) in rows for rows in columns):
        over = [rows[OURS, BACKWARD]["median_ms"] / rows[OURS, FORWARD]["median_ms"] for rows in columns]
        yield [f"{BACKWARD} over {FORWARD}", *(f"{ratio:.2f}" for ratio in over)]
    for key in (OURS, "unfused", "flex", "natten"):
        found = [rows.get((key, FORWARD)) for rows in columns]
        if any(found):
            name = next(row["name"] for row in found if row)
            cells = ("" if row is None else f"{row['extra_bytes'] / 2**20:,.2f} MiB" for row in found)
            yield [f"{FORWARD}: memory of {name} beyond inputs and results", *cells]


def lines(run: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the page."""
    here, comparisons = run["machine"], run["comparisons"]
    yield f"{here['gpu'] or here['cpu']}, {here['threads']} threads, {here['cpu_capability']}, torch {here['torch']}"
    columns = [by_row(comparison) for comparison in comparisons]
    tables = [(direction, list(times(columns, direction))) for direction in (FORWARD, BACKWARD)]
    tables.append(("", list(shares(columns, [comparison["floors"] for comparison in comparisons]))))
    for title, body in tables:
        if body:
            head = [title, *(comparison["problem"]["name"] for comparison in comparisons)]
            yield ""
            for cells in (head, ["---"] + ["---:"] * len(columns), *body):
                yield f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table of a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="what elsa-ext bench has written, of one op or layer")
    print("\n".join(lines(json.loads(parser.parse_args().file.read_text()))))


if __name__ == "__main__":
    main()
