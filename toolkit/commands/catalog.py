"""Catalog commands: list and fetch models, data, attacks, defenses and policies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.commands.options import Quiet
from toolkit.commands.show import print_json, progress, say, say_file

if TYPE_CHECKING:
    from toolkit.registry import Source

models_app = typer.Typer(help="List the shipped verifiers, and fetch published ones.", no_args_is_help=True)
data_app = typer.Typer(help="Fetch published face pairs.", no_args_is_help=True)
policy_app = typer.Typer(help="Show policies: how they rate risk, and what the gate requires.", no_args_is_help=True)


def attacks_list() -> None:
    """List the attacks, the access they need, and the suites that run them.

    [bold]Examples[/bold]

      sixpixels attacks
    """
    import inspect

    from toolkit.audit.suites import BUDGET, SUITES, balls
    from toolkit.registry import find_entries

    suites = {name: {attack.name for attack in make(balls(BUDGET, 1))} for name, make in SUITES.items()}
    found = find_entries("attack")
    for name, attack in found.entries.items():
        summary = (inspect.getdoc(type(attack)) or "").splitlines()[0]
        of = ", ".join(suite for suite, names in suites.items() if name in names)
        say(f"{name:14} {attack.needs:9} {summary}" + (f" [{of}]" if of else "") + _from(found.sources[name]))


def defenses_list() -> None:
    """List the defenses that profiles can use, and how attackers get the gradient of each.

    [bold]Examples[/bold]

      sixpixels defenses
    """
    import inspect

    from toolkit.registry import find_entries

    found = find_entries("defense")
    for name, defense in found.entries.items():
        summary = (inspect.getdoc(defense) or "").splitlines()[0]
        say(f"{name:16} {defense.backward:16} {summary}" + _from(found.sources[name]))


def _from(source: Source) -> str:
    """The distribution that an entry comes from; empty for an entry of this toolkit."""
    from toolkit.registry import OWN

    return "" if source == OWN else f" (from {source})"


@models_app.command("list")
def models_list() -> None:
    """List the shipped models.

    [bold]Examples[/bold]

      sixpixels models list
    """
    from toolkit.files import bundled
    from toolkit.verifiers.manifest import read_manifest

    for path in sorted(bundled("models").glob("*/model.toml")):
        manifest = read_manifest(path)
        say(f"{manifest.name:20} {manifest.decision.metric} < {manifest.decision.threshold:g}   {manifest.license}")


@models_app.command("fetch")
def models_fetch(
    name: Annotated[str, typer.Argument(help="facenet, or the name of one of its published versions.")] = "facenet",
    folder: Annotated[Path, typer.Option(help="Save into this folder.")] = Path("models"),
    quiet: Quiet = False,
) -> None:
    """Download published weights, check their SHA-256, and write their manifest.

    [bold]Examples[/bold]

      sixpixels models fetch facenet
    """
    from toolkit.fetch import fetch_model

    with progress(quiet=quiet) as shown:
        where = fetch_model(name, folder, progress=shown.counter(f"{name} (bytes)"))
    say(where)


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="lfw, or lfw-funneled.")] = "lfw",
    folder: Annotated[Path, typer.Option(help="Save into this folder.")] = Path("data"),
    quiet: Quiet = False,
) -> None:
    """Download published face pairs, check their SHA-256, and unpack them.

    [bold]Examples[/bold]

      sixpixels data fetch lfw --folder data
    """
    from toolkit.fetch import fetch_data

    with progress(quiet=quiet) as shown:
        where = fetch_data(name, folder, progress=shown.counter(f"{name} (bytes)"))
    say(where)


@policy_app.command("show")
def policy_show(
    name: Annotated[str | None, typer.Argument(help="A policy's name. Default: list them.")] = None,
) -> None:
    """List the shipped policies, or print one as a starting point for your own.

    [bold]Examples[/bold]

      sixpixels policy show
      sixpixels policy show access-control
    """
    from toolkit.registry import choose
    from toolkit.risk.policy import shipped_policies

    known = shipped_policies()
    for path in known.values() if name is None else choose("policy", [name], known):
        text = path.read_text(encoding="utf-8")
        if name is None:
            say(f"{path.stem:16} {text.splitlines()[0][2:]}")
        else:
            say_file(text)


@policy_app.command("schema")
def policy_schema_() -> None:
    """Print the JSON Schema of policies.

    [bold]Examples[/bold]

      sixpixels policy schema
    """
    from toolkit.risk.policy import policy_schema

    print_json(policy_schema())
