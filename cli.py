"""The command line: registers the commands, and turns every error into one line and an exit status."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from toolkit import __version__
from toolkit.commands import (
    audit,
    build,
    catalog,
    config,
    doctor,
    evaluate,
    manifest,
    power,
    profiles,
    reconstruct,
    runs,
)
from toolkit.errors import SixpixelsError
from toolkit.quiet import DEBUG
from toolkit.text import shown, visible_lines

_INTERRUPTED = 130

app = typer.Typer(
    help="Audit and harden face verifiers that are deployed as ONNX files.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help=f"Show the traceback of an error, as {DEBUG}=1 does.")] = False,
) -> None:
    """Audit and harden face verifiers that are deployed as ONNX files.

    [bold]Examples[/bold]

      sixpixels audit
      sixpixels audit facenet-mini --pairs LFW --limit 100
      sixpixels evaluate facenet-mini --pairs LFW
      sixpixels replay runs/1a2b3c4d --on other.onnx
      sixpixels export facenet-mini -o out.onnx
      sixpixels doctor
    """
    if debug:
        os.environ[DEBUG] = "1"
    if version:
        print(f"sixpixels {__version__}")
        raise typer.Exit


# The help page lists the commands in this order.
for command in (audit.audit, doctor.doctor, runs.replay, runs.gate, runs.report, runs.compare, audit.sweep):
    app.command()(command)
for command in (reconstruct.reconstruct, power.power, evaluate.evaluate, build.export):
    app.command()(command)
app.command("attacks")(catalog.attacks_list)
app.command("defenses")(catalog.defenses_list)
for command in (build.harden, build.quantize, evaluate.calibrate):
    app.command()(command)
for name, group in (
    ("manifest", manifest.app),
    ("models", catalog.models_app),
    ("data", catalog.data_app),
    ("profiles", profiles.app),
    ("policy", catalog.policy_app),
    ("config", config.app),
    ("results", runs.results_app),
):
    app.add_typer(group, name=name)


def main() -> None:
    """Run the command line. Errors that a user can act on become one line on standard error and an exit status."""
    try:
        status = app(standalone_mode=False)
    except SixpixelsError as error:
        _fail(str(error), error.exit_status)
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted; finished work is kept", _INTERRUPTED)
    except MemoryError:
        _fail("out of memory; use --limit or fewer --workers", 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(2)
    except OSError as error:
        _fail(f"{error.filename or 'input or output'}: {error.strerror}", 2)
    except Exception as error:  # noqa: BLE001 - a bug is one line too
        if hasattr(error, "format_message"):  # click's usage errors
            _fail(f"{error.format_message()} (try --help)", 4)
        _fail(f"internal error ({type(error).__name__}: {error}); please report what {DEBUG}=1 shows", 2)
    if status == _INTERRUPTED:  # typer turns Ctrl-C into this status without a message
        _fail("interrupted; finished work is kept", _INTERRUPTED)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, status: int) -> None:
    if os.environ.get(DEBUG):
        print(visible_lines(traceback.format_exc().rstrip()), file=sys.stderr)
    print(f"sixpixels: {shown(message)}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
