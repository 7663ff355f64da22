"""The command that tests this installation."""

from __future__ import annotations

import typer

from toolkit.commands.options import Json
from toolkit.commands.show import console, print_document

_BROKEN = 2


def doctor(as_json: Json = False) -> None:
    """Test this installation: package versions, ONNX Runtime providers, shipped files, disk space and memory.

    Exits with 2 if something that audits need is broken.

    [bold]Examples[/bold]

      sixpixels doctor
      sixpixels doctor --json
    """
    from toolkit.doctor import diagnose
    from toolkit.report.diagnosis import print_diagnosis

    diagnosis = diagnose()
    if as_json:
        print_document(diagnosis)
    else:
        print_diagnosis(diagnosis, console())
    if not diagnosis.works:
        raise typer.Exit(_BROKEN)
