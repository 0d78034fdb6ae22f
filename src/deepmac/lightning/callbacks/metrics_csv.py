"""``metrics.csv`` of a run directory; a resumed run continues the file it finds."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter

from deepmac.errors import UserError
from deepmac.files import atomic_file
from deepmac.lightning.private import KeptWriter

Row = Mapping[str, Any]


class MetricsCsv(CSVLogger):
    """Lightning's CSV logger with one file per run directory.

    A training that goes on from a checkpoint keeps the rows that were written when that was saved;
    one that starts anew starts the file anew. Other commands leave a training's file alone.

    Args:
        save_dir: the run directory.
    """

    def __init__(self, save_dir: str = ".") -> None:
        super().__init__(save_dir, name="", version="", flush_logs_every_n_steps=1)
        self._table: _Table | None = None

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """The writer, made on first use."""
        if self._table is None:
            self._table = _Table(self.save_dir)
        return self._table

    def log_hyperparams(self, params: Any = None) -> None:
        """They are in ``config.yaml``."""

    def save(self) -> None:
        """Write what was logged."""
        if self._table is not None:
            self._table.save()

    def finalize(self, status: str) -> None:
        """The run ends."""
        self.save()

    def start(self) -> None:
        """A training begins, at its first step unless :meth:`go_on` says otherwise."""
        self.go_on(0, None)

    def leave_alone(self, *, always: bool = False) -> None:
        """Another command than training: write no rows into the file of one.

        Args:
            always: not even where this process trained.
        """
        if isinstance(self.experiment, _Table):
            self.experiment.leave_alone(always)

    def sync(self) -> int:
        """Have everything logged so far on the disk; returns the number of rows."""
        return self.experiment.sync() if isinstance(self.experiment, _Table) else 0

    def go_on(self, rows: int, pending: Row | None) -> None:
        """Drop what came after a checkpoint.

        Args:
            rows: in the file when it was saved; later ones are of steps to come again.
            pending: the row of the last step before it, which was not yet in the file.
        """
        if isinstance(self.experiment, _Table):
            self.experiment.go_on(rows, pending)


class _Table(KeptWriter):
    """The file; a header that grows replaces it whole, rows are appended."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self._path = Path(self.metrics_file_path)
        self._writes = True
        self._trains = False
        self._kept: int | None = sys.maxsize
        self._first: list[Row] = []
        self._count = 0

    def leave_alone(self, always: bool) -> None:
        """See ``MetricsCsv``."""
        self._writes = (self._trains and not always) or not self._path.exists()

    def go_on(self, rows: int, pending: Row | None) -> None:
        """See ``MetricsCsv``; nothing is touched before the first row comes."""
        self._trains = self._writes = True
        self._kept = rows
        self._first = [] if pending is None else [pending]

    def save(self) -> None:
        """Append what was logged."""
        if self.metrics and self._writes:
            if self._kept is not None:
                self._drop_rows(self._kept)
            self._append(self.metrics)
        self.metrics = []

    def sync(self) -> int:
        self.save()
        if self._path.is_file() and self._writes:
            with self._path.open("rb+") as file:
                os.fsync(file.fileno())
        return self._count

    def _drop_rows(self, rows: int) -> None:
        self._kept = None
        kept: list[Row] = []
        self.metrics_keys = []
        if rows and self._path.is_file():
            kept, self.metrics_keys = self._read(rows)
        if kept or self._first:
            self._replace([*kept, *self._first])
        else:
            self._path.unlink(missing_ok=True)

    def _read(self, rows: int | None) -> tuple[list[Row], list[str]]:
        """The first rows, None for all, and the header."""
        try:
            with self._path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                found: list[Row] = list(islice(reader, rows))
                if any(None in row for row in found):
                    raise ValueError("a row has more values than there are columns")
                return found, list(reader.fieldnames or [])
        except (ValueError, csv.Error) as error:
            raise UserError(
                f"{self._path} is damaged ({error}): move it away, and the run goes on without the "
                "rows of before"
            ) from None

    def _append(self, rows: Sequence[Row]) -> None:
        if not set().union(*rows) <= set(self.metrics_keys) or not self._path.is_file():
            old: list[Row] = []
            if self._path.is_file():
                old, _ = self._read(None)
            self._replace([*old, *rows])
            return
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.metrics_keys).writerows(rows)
        self._count += len(rows)

    def _replace(self, rows: Iterable[Row]) -> None:
        rows = list(rows)
        self.metrics_keys = sorted(set(self.metrics_keys).union(*rows))
        with atomic_file(self._path) as file:
            writer = csv.DictWriter(file, self.metrics_keys)
            writer.writeheader()
            writer.writerows(rows)
        self._count = len(rows)
