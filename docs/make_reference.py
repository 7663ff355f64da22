"""Writes docs/reference/ from the schemas: `python docs/make_reference.py`. A test compares."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from toolkit.audit.schema import config_schema
from toolkit.profiles.schema import profile_schema
from toolkit.report.reference import describe
from toolkit.report.schemas import report_schema, transfer_schema
from toolkit.risk.policy import policy_schema
from toolkit.verifiers.schema import manifest_schema

# A new page is one line.
PAGES: dict[str, Callable[[], dict[str, Any]]] = {
    "audit-config": config_schema,
    "manifest": manifest_schema,
    "policy": policy_schema,
    "profile": profile_schema,
    "report": report_schema,
    "transfer": transfer_schema,
}
FOLDER = Path(__file__).parent / "reference"
_NOTE = "\n*Made by `docs/make_reference.py` from the schema.*\n"


def pages() -> dict[Path, str]:
    """The text of every page."""
    return {FOLDER / f"{name}.md": describe(schema()) + _NOTE for name, schema in PAGES.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(path)
