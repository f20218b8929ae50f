"""``drakkar data``: make what recipes train on."""

import typer

from drakkar.cli.components import component
from drakkar.cli.session import command

GROUP = "drakkar.data"

app = typer.Typer(help="Make what recipes train on.", no_args_is_help=True)


@app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    }
)
@command
def prepare(context: typer.Context) -> None:
    """Read documents, clean and deduplicate them, pack their tokens into shards; --help for more."""
    raise typer.Exit(component(GROUP, "prepare", "workers")(context.args))
