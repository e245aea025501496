"""`python -m tests.benchmarks`: the table of what storescope costs, ours beside the floor in one run."""

from __future__ import annotations

import platform

from rich.console import Console
from rich.table import Table

from tests.benchmarks import encoder, overhead, payloads, propagation, startup, whole_call


def main() -> None:
    """Run every benchmark and print one table."""
    table = Table(title=f"CPython {platform.python_version()}, medians")
    for heading in ("what", "ours", "floor", "ratio", "target", ""):
        table.add_column(heading, justify="left" if heading == "what" else "right", no_wrap=True)
    console = Console(width=110)
    for benchmark in (overhead, payloads, propagation, encoder, startup, whole_call):
        with console.status(benchmark.__doc__.splitlines()[0] if benchmark.__doc__ else ""):
            for row in benchmark.rows():
                target = "" if row.target is None else f"≤ {row.target:g}"
                verdict = "" if row.target is None else "met" if row.ratio <= row.target else "missed"
                table.add_row(
                    row.name,
                    f"{row.ours:.2f} {row.unit}",
                    f"{row.floor:.2f} {row.unit}",
                    f"{row.ratio:.3f}",
                    target,
                    verdict,
                )
    console.print(table)


if __name__ == "__main__":
    main()
