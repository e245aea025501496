"""`python -m tests.benchmarks [NAME...]`: the table of what storescope costs, ours beside the floor in one run."""

from __future__ import annotations

import platform
import sys
from importlib import import_module

from rich.console import Console
from rich.table import Table

#: The modules, each with its `rows()`: what the agent costs, then the optimizers.
NAMES = """
    overhead payloads propagation encoder startup whole_call
    cache hit_ratio memoize codec connection_pool mcp_pool batch executors object_pool profiler sampler workload
""".split()


def main() -> None:
    """Run the benchmarks that are named, all by default, and print one table."""
    table = Table(title=f"CPython {platform.python_version()}, medians")
    for heading in ("what", "ours", "floor", "ratio", "target", ""):
        table.add_column(heading, justify="left" if heading == "what" else "right", no_wrap=True)
    console = Console(width=160)
    for name in sys.argv[1:] or NAMES:
        benchmark = import_module(f"tests.benchmarks.{name}")
        with console.status(benchmark.__doc__.splitlines()[0] if benchmark.__doc__ else ""):
            for row in benchmark.rows():
                target = "" if row.target is None else f"≤ {row.target:.4g}"
                verdict = "" if row.target is None else "met" if row.ratio <= row.target else "missed"
                table.add_row(
                    row.name,
                    f"{row.ours:.2f} {row.unit}",
                    f"{row.floor:.2f} {row.unit}",
                    f"{row.ratio:.4f}",
                    target,
                    verdict,
                )
    console.print(table)


if __name__ == "__main__":
    main()
