"""What goes to a logger beside numbers: pictures and the report of a benchmark, to each in its own way."""

import csv
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
from lightning.pytorch import loggers
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from tiepoint.errors import InputError


class CometLogger(loggers.CometLogger):
    """Lightning's, and offline it writes: with `online: false` Lightning 2.6 disables the experiment altogether.

    Args:
        api_key: of the account; $COMET_API_KEY or Comet's own configuration if None.
        workspace: where the project is; the account's default if None.
        project: that the experiment belongs to.
        name: of the experiment.
        online: False keeps all on the disk, for `comet upload`.
        offline_directory: where.
        experiment_key: of an experiment to go on with.
        prefix: before the names of all numbers.
    """

    def __init__(
        self,
        api_key: str | None = None,
        workspace: str | None = None,
        project: str | None = None,
        name: str | None = None,
        online: bool = True,
        offline_directory: str | None = None,
        experiment_key: str | None = None,
        prefix: str | None = None,
    ) -> None:
        options: dict[str, Any] = {"name": name, "offline_directory": offline_directory}
        super().__init__(
            api_key=api_key,
            workspace=workspace,
            project=project,
            online=online,
            experiment_key=experiment_key,
            prefix=prefix or None,  # an empty one would still bring its separator
            **{option: value for option, value in options.items() if value},
        )

    def _create_experiment(self) -> None:
        if self._online is False:
            import comet_ml

            self._comet_config = comet_ml.ExperimentConfig(**self._kwargs)
            if self._comet_config.offline_directory:
                Path(self._comet_config.offline_directory).mkdir(parents=True, exist_ok=True)
        super()._create_experiment()


def log_image(destination: Logger, name: str, picture: npt.NDArray[np.uint8], *, step: int) -> None:
    """Hand a picture (H, W, 3) to a logger; one that takes none, as `CSVLogger`, is passed over."""
    if isinstance(destination, loggers.TensorBoardLogger):
        destination.experiment.add_image(name, picture, step, dataformats="HWC")
    elif isinstance(destination, loggers.MLFlowLogger):
        destination.experiment.log_image(destination.run_id, picture, artifact_file=f"{name}/{step:06d}.png")
    elif isinstance(destination, loggers.CometLogger):
        destination.experiment.log_image(picture, name=name, step=step)
    elif hasattr(destination, "log_image"):
        destination.log_image(key=name, images=[picture], step=step)


def log_files(destination: Logger, name: str, files: Sequence[Path], *, step: int) -> None:
    """Hand the files of a report to a logger; TensorBoard gets the text of the .md, `CSVLogger` nothing."""
    if isinstance(destination, loggers.TensorBoardLogger):
        for file in files:
            if file.suffix == ".md":
                destination.experiment.add_text(name, file.read_text(), step)
    elif isinstance(destination, loggers.MLFlowLogger):
        for file in files:
            destination.experiment.log_artifact(destination.run_id, str(file), name)
    elif isinstance(destination, loggers.CometLogger):
        for file in files:
            destination.experiment.log_asset(str(file), file_name=f"{name}/{file.name}", step=step)
    elif isinstance(destination, loggers.WandbLogger):
        for file in files:
            destination.experiment.save(str(file), base_path=str(file.parent), policy="now")


@rank_zero_only
def take_up_csv(logger: loggers.CSVLogger, *, step: int | None = None) -> None:
    """Let a `CSVLogger` go on with the file that is there, where Lightning would delete it.

    Args:
        logger: that has not written yet.
        step: at which the training goes on: what was logged of later ones is made again, and dropped; all is kept if
            None.
    """
    path = Path(logger.log_dir) / "metrics.csv"
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    aside = path.with_suffix(".csv.before")
    os.replace(path, aside)  # Lightning would delete it
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Experiment logs directory .* exists and is not empty")
        writer = logger.experiment
    kept = [row for row in rows if step is None or int(row["step"]) < step]
    writer.metrics = [{name: value for name, value in row.items() if value} for row in kept]
    writer.save()
    aside.unlink()


def folder_of(trainer: L.Trainer) -> Path | None:
    """The folder of a run: that of the first logger, named as Lightning names it; None without a logger.

    Where a logger keeps its own record elsewhere, as in a database, the run's folder lies in `runs/`.
    """
    if not trainer.loggers:
        return None
    first = trainer.loggers[0]
    if isinstance(first, loggers.TensorBoardLogger | loggers.CSVLogger):
        return Path(first.log_dir)
    version = first.version if isinstance(first.version, str) else f"version_{first.version}"
    return Path(first.save_dir or Path(trainer.default_root_dir) / "runs") / str(first.name) / version


def refuse_sunset(chosen: str) -> None:
    """Say that a logger's service is no more.

    Args:
        chosen: what the command line says of the logger.

    Raises:
        InputError: it is Neptune's, which ended in March 2026.
    """
    if "NeptuneLogger" in chosen:
        raise InputError(
            "--trainer.logger is NeptuneLogger, whose service ended in March 2026, expected one of "
            "TensorBoardLogger, CSVLogger, WandbLogger, MLFlowLogger, tiepoint.loggers.CometLogger"
        )
