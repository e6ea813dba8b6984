"""The commands; all but the two short ones have files of their own; each parses its words, calls one verb, and prints."""

from pathlib import Path
from typing import Annotated

import typer

from ._attack import attack
from ._audit import audit
from ._certify import certify
from ._options import Quiet
from ._train import train
from ._verify import verify

app = typer.Typer(
    name="jaxsec",
    help="Attack, audit, certify, verify and train machine-learning models. "
    "Exit codes: 0 done, 1 not within --fail-under or --fail-on, 2 a mistake in the call or the data, 3 a defect of jaxsec, "
    "130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:
    if asked:
        from .. import __version__

        typer.echo(f"jaxsec {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Options of every command."""


app.command()(audit)
app.command()(attack)
app.command()(certify)
app.command()(verify)
app.command()(train)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder with a report.json, or that file.")], quiet: Quiet = False
) -> int:
    """Render report.html, .md and .sarif again from report.json."""
    from ..audit import Report

    read = Report.load(folder)
    paths = read.render(folder if folder.is_dir() else folder.parent)
    if not quiet:
        for path in paths:
            typer.echo(str(path))
    return 0


@app.command()
def version() -> int:
    """Print the versions of jaxsec and of what it computes with."""
    from .. import __version__
    from ..audit._environment import environment

    env = environment()
    typer.echo(f"jaxsec {__version__}")
    for name, text in env["packages"].items():
        typer.echo(f"{name} {text}")
    typer.echo(f"python {env['python']} on {env['platform']}, {env['backend']}: {env['devices']} x {env['device']}")
    return 0
