"""`alignslm demo`: a page to talk to the models."""

from pathlib import Path
from typing import Annotated

import typer

from alignslm.cli.options import Root, separated


def demo(
    root: Root = Path(),
    *,
    models: Annotated[
        str | None, typer.Option("--models", "-m", help="Models to offer, comma-separated; default: every checkpoint.")
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; 0.0.0.0 is open to the network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", min=1, max=65535)] = 7860,
    browser: Annotated[bool, typer.Option("--browser", help="Open the page in the browser.")] = False,
    export_space: Annotated[
        Path | None, typer.Option("--export-space", help="Write a folder for a Hugging Face Space instead.")
    ] = None,
) -> None:
    """Serve a page to talk to the models: record or upload speech, hear their continuations side by side.

    By default only this machine can open it. It contacts no other host and shares nothing. Needs the
    extra [bold]demo[/].

    [bold]alignslm demo[/]                                    http://127.0.0.1:7860

    [bold]alignslm demo --models base,r1 --export-space space[/]     a folder to upload as a Space
    """
    from alignslm.demo.page import serve
    from alignslm.demo.space import export_space as export

    named = separated(models)
    if export_space is None:
        serve(root, named, host=host, port=port, opened=browser)
    else:
        export(root, named, export_space)
        typer.echo(f"wrote {export_space}; try it with `python {export_space / 'app.py'}`")
