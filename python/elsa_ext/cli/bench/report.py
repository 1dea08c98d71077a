"""The tables on the terminal."""

from collections.abc import Sequence

from .results import Record


def head(run: Record) -> list[str]:
    """Return the lines about the machine."""
    here = run["machine"]
    floors = run["floors"]
    return [
        f"machine  {here['gpu'] or here['cpu']}, {here['threads']} threads, {here['cpu_capability']}",
        f"torch    {here['torch']}, elsa_ext {here['elsa_ext']}, Python {here['python']}",
        f"floors   {show_floors(floors)}",
    ]


def show_floors(floors: Record) -> str:
    """Return the measured limits of the machine."""
    return (
        f"torch.mm in {floors['mm_dtype']} {floors['gfma_per_s']:,.1f} GFMA/s, a large copy "
        f"{floors['gb_per_s']:,.1f} GB/s"
    )


def table(comparison: Record) -> list[str]:
    """Return the lines of one comparison."""
    images = any(row["images_per_s"] is not None for row in comparison["rows"])
    rate = "images/s" if images else "GB/s"
    header = ["", "direction", "rounds", "ms", "IQR", rate, "GFMA/s", "of mm", "of floor", "peak MiB", "extra", "ratio"]
    cells = [header]
    for row in comparison["rows"]:
        cells.append(
            [
                row["name"],
                row["direction"],
                str(row["rounds"]),
                milliseconds(row["median_ms"]),
                milliseconds(row["iqr_ms"]),
                f"{row['images_per_s']:,.2f}" if images else f"{row['gb_per_s']:,.2f}",
                f"{row['gfma_per_s']:,.2f}",
                f"{100 * row['gfma_per_s'] / comparison['floors']['gfma_per_s']:.1f} %",
                f"{row['percent_of_floor']:.1f} %",
                mebibytes(row["peak_bytes"]),
                mebibytes(row["extra_bytes"]),
                "" if row["ours"] else f"{row['ratio']:,.2f} x",
            ]
        )
    lines = [comparison["title"], f"floors in the same rounds: {show_floors(comparison['floors'])}"]
    lines += aligned(cells, left=2)
    return lines + [f"absent: {absent_line(absent)}" for absent in comparison["absent"]]


def mebibytes(count: int) -> str:
    """Return a number of bytes."""
    return f"{count / 2**20:,.2f}"


def milliseconds(value: float) -> str:
    """Return a time with at least three digits."""
    return f"{value:,.3f}" if value >= 0.1 else f"{value:.4f}"


def absent_line(absent: Record) -> str:
    """Return who is absent, in which direction, and why."""
    name = absent["name"] if absent["direction"] is None else f"{absent['name']} {absent['direction']}"
    return f"{name} ({absent['reason']})"


def aligned(cells: Sequence[Sequence[str]], left: int) -> list[str]:
    """Return rows as lines of columns, the first ``left`` of them flush left; a row of one cell has no columns."""
    wide = [row for row in cells if len(row) > 1]
    widths = [max(len(row[column]) for row in wide) for column in range(len(wide[0]))]
    lines = []
    for row in cells:
        padded = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        lines.append("  ".join(padded).rstrip())
    return lines
