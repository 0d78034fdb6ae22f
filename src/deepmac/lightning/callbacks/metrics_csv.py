"""``metrics.csv`` of a run directory; a resumed run continues the file it finds."""

from __future__ import annotations

import csv
from pathlib import Path

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter


class MetricsCsv(CSVLogger):
    """Lightning's CSV logger, one file per run directory, that never deletes earlier rows.

    Args:
        save_dir: the run directory.
    """

    def __init__(self, save_dir: str = ".") -> None:
        super().__init__(save_dir, name="", version="", flush_logs_every_n_steps=1)

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """The writer, made on first use."""
        if self._experiment is None:
            self._experiment = _ContinuingWriter(self.save_dir)
        return self._experiment  # type: ignore[return-value]


class _ContinuingWriter(ExperimentWriter):
    """Keeps the rows of an interrupted run up to the step at which this one goes on."""

    def _check_log_dir_exists(self) -> None:
        self._continued = False

    def save(self) -> None:
        if self.metrics and not self._continued:
            self._continued = True
            self._keep_rows_before(min(int(row["step"]) for row in self.metrics))
        super().save()

    def _keep_rows_before(self, step: int) -> None:
        path = Path(self.metrics_file_path)
        if not path.is_file():
            return
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            rows = [row for row in reader if row.get("step") and int(row["step"]) < step]
            self.metrics_keys = sorted(reader.fieldnames or [])
        if rows:
            self._write(path, rows)
        else:
            path.unlink()
            self.metrics_keys = []

    def _write(self, path: Path, rows: list[dict[str, str]]) -> None:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=self.metrics_keys)
            writer.writeheader()
            writer.writerows(rows)
