"""Export: writes the outcomes of a finished audit as one flat table, for other programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.audit.results.outcomes import COLUMNS, Run
from toolkit.errors import UnavailableError, UsageError
from toolkit.files import atomic_write

_SUFFIXES = (".csv", ".parquet")


def export_results(run: Run, output: Path) -> int:
    """Write one row for each pair in each scenario, and return the number of rows.

    The columns are attack, knowledge, known, profile, pair, genuine, group, clean_distance, clean_correct, and
    `COLUMNS`. The group is empty for pairs without one.

    Raises:
        UsageError: the name of `output` does not end in .csv or .parquet.
        UnavailableError: `output` is a Parquet file, and PyArrow is not installed.
        InputError: the file cannot be written.
    """
    if output.suffix not in _SUFFIXES:
        raise UsageError(f"{output}: the name must end in {' or '.join(_SUFFIXES)}")
    if output.suffix == ".parquet":
        _write_parquet(run, output)
    else:
        _write_csv(run, output)
    return len(run.pairs) * len(run.outcomes)


def _tables(run: Run) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the columns of each scenario."""
    clean, count = {c.profile: c for c in run.clean}, len(run.pairs)
    for o in run.outcomes:
        names = {name: np.full(count, getattr(o, name)) for name in ("attack", "knowledge", "known", "profile")}
        yield {
            **names,
            "pair": np.array(run.pairs),
            "genuine": run.genuine,
            "group": np.array(run.faces.subgroups),
            "clean_distance": clean[o.profile].distances,
            "clean_correct": clean[o.profile].correct,
            **{name: getattr(o, name) for name in COLUMNS},
        }


def _write_csv(run: Run, output: Path) -> None:
    with atomic_write(output) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
        writer = csv.writer(text, lineterminator="\n")
        for i, table in enumerate(_tables(run)):
            if i == 0:
                writer.writerow(table)
            columns = [(c.astype(np.int64) if c.dtype == np.bool_ else c).tolist() for c in table.values()]
            writer.writerows(zip(*columns, strict=True))
        # This flushes without closing the stream, which `atomic_write` closes.
        text.detach()


def _write_parquet(run: Run, output: Path) -> None:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise UnavailableError('Parquet needs PyArrow: pip install "sixpixels[parquet]"') from error
    tables = [pa.table(table) for table in _tables(run)]
    with atomic_write(output) as stream:
        parquet.write_table(pa.concat_tables(tables), stream)
