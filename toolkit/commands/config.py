"""Commands that show the options of an audit, and where each value comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from toolkit.commands.options import Config, Json, takes_audit_options
from toolkit.commands.show import print_json, say

app = typer.Typer(help="Show the options of an audit, and where each value comes from.", no_args_is_help=True)


@app.command("show")
@takes_audit_options
def config_show(given: dict[str, Any], config: Config = None, as_json: Json = False) -> None:
    """Print every option of an audit: its value, and the source of the value.

    [bold]Examples[/bold]

      sixpixels config show
      sixpixels config show --config audit.toml --seed 1
    """
    from toolkit.audit.options import as_text, declared_options, resolve

    found = resolve(given, config)
    values = {o.name: getattr(found.options, o.name) for o in declared_options()}
    if as_json:
        plain = {o.key: {"value": _plain(values[o.name]), "from": found.sources[o.name]} for o in declared_options()}
        print_json(plain)
        return
    for o in declared_options():
        text = as_text(values[o.name]) or f"({o.shown or 'none'})"
        say(f"{o.key:17} {text:32} {found.sources[o.name]}")


@app.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of audit.toml, for editors.

    [bold]Examples[/bold]

      sixpixels config schema
    """
    from toolkit.audit.schema import config_schema as schema

    print_json(schema())


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
