"""`python -m benchmarks [NAME...]`: all by default."""

from __future__ import annotations

import argparse
import importlib

NAMES = (
    *("reading", "scraping", "harmless", "pricing", "database", "fleet", "ledger", "replicas", "operations"),
    "backfill",
)


def main() -> None:
    """Run the benchmarks that are named."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="a tenth of the size, to try them out")
    options = parser.parse_args()
    for name in options.names or NAMES:
        if name not in NAMES:
            parser.error(f"no benchmark is called {name}; there are {', '.join(NAMES)}")
        print(f"\n== {name}", flush=True)
        importlib.import_module(f"benchmarks.{name}").main(quick=options.quick)


if __name__ == "__main__":
    main()
