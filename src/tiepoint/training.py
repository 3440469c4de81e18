"""fit, validate, test and predict: one LightningCLI call over whatever tasks and data lie in the rooms."""

import contextlib
import json
import os
import signal
import sys
import tempfile
import warnings
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, Literal, NoReturn

import lightning as L
import torch
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.utilities.exceptions import SIGTERMException
from loguru import logger

from tiepoint import data, logs, models, tasks
from tiepoint.callbacks import (
    BenchmarkReport,
    PredictionWriter,
    Progress,
    RunCheckpoint,
    RunFolder,
    is_rehearsal,
    run_folder,
)
from tiepoint.checkpoints import WARM_START
from tiepoint.crashes import BATCH, CONFIG, STATE, CrashCapture, Replay, StepWentWellError
from tiepoint.debugging import BreakAt, breakpoint_hook
from tiepoint.errors import InputError, WorkError, parser_sentence, with_nearest
from tiepoint.files import check_writable
from tiepoint.loggers import refuse_sunset, take_up_csv
from tiepoint.models.base import Network
from tiepoint.precision import HalfWeights
from tiepoint.resume import SeededSteps, newest_checkpoint, newest_run
from tiepoint.tasks.base import BaseTask
from tiepoint.training_pictures import MapPictures, MatchPictures, PairPictures

DEFAULT_CLASSES = {
    "model": {"class_path": "tiepoint.tasks.matching.MatchingTask"},
    "data": {"class_path": "tiepoint.data.photos.PhotoPairs"},
}


class TiepointParser(LightningArgumentParser):
    """Lightning's parser, whose errors are one sentence."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise instead of printing the usage and leaving."""
        raise InputError(with_nearest(parser_sentence(message), _known_names(self))) from ex


def _known_names(parser: ArgumentParser) -> Iterator[str]:
    """What could have been meant: options, of the command line or of the class that a parser is for, and classes."""
    for action in parser._actions:
        for option in action.option_strings:
            yield from (option, option.removeprefix("--"))
        if isinstance(action, _SubParsersAction):
            for verb in action.choices.values():
                yield from _known_names(verb)
    bases: tuple[type, ...] = (BaseTask, Network, L.LightningDataModule, Callback, Logger, Profiler)
    for base in bases:
        yield from (kind.__name__ for kind in _subclasses(base))


def _subclasses(base: type) -> Iterator[type]:
    below: list[type] = base.__subclasses__()
    for kind in below:
        yield from (kind, *_subclasses(kind))


class TiepointCLI(LightningCLI):
    """Stock LightningCLI but for the order of precedence: a checkpoint's hyperparameters are the defaults.

    What a recipe or the command line says wins over what the checkpoint given as --ckpt_path remembers.
    """

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Make the callback that writes checkpoints configurable as --checkpoint."""
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.add_argument(
            "--debug", type=bool, default=False, help="Open pdb where it fails; one process, no workers."
        )
        parser.add_argument("--break-at", type=str, help="Open pdb before a step, as train:120.")
        parser.add_argument("--break-when", type=str, help="Open pdb before a step if this holds, as 'loss > 10'.")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the command line after what its checkpoint remembers, so that it wins."""
        given = [str(arg) for arg in (sys.argv[1:] if args is None else args)]
        # not the parser's defaults: those hand their arguments on to the class that a recipe names instead
        given[1:1] = ["--config", json.dumps(DEFAULT_CLASSES)]
        if _option(given, "--ckpt_path") == "last":
            given += _going_on(parser.parse_args(given)[given[0]])
        refuse_sunset(_option(given, "--trainer.logger") or "")
        remembered = _remembered(_option(given, "--ckpt_path"))
        if remembered:
            given[3:3] = ["--config", json.dumps(remembered)]
        if given[:1] == ["predict"]:
            given.insert(1, "--return_predictions=false")  # they are written to files, not kept in memory
        self.config = parser.parse_args(given)
        verb = self.config.get("subcommand")
        if verb in ("validate", "test", "predict"):
            ckpt_path = self.config[verb].get("ckpt_path")
            if ckpt_path is None or not Path(ckpt_path).is_file():
                raise InputError(f"--ckpt_path is {ckpt_path}, expected the file whose weights to {verb}")
        asked = self.config[verb] if verb else Namespace()
        if asked.get("debug"):
            logger.info("--debug: one process, no workers")
            asked.trainer.devices, asked.trainer.strategy = 1, "auto"
        if asked.get("break_at") or asked.get("break_when"):
            self.trainer_defaults["callbacks"].append(BreakAt(asked.break_at, asked.break_when))

    def instantiate_classes(self) -> None:
        """Build task, data and Trainer; what they say of their arguments is said of the command line."""
        try:
            super().instantiate_classes()
        except (ValueError, TypeError) as error:
            raise InputError(parser_sentence(str(error))) from error
        if self.config[self.subcommand].debug and hasattr(self.datamodule, "num_workers"):
            self.datamodule.num_workers = 0  # what fails in a worker cannot be looked at
        if is_rehearsal(self.trainer):
            return
        for each in self.trainer.loggers:
            if each.save_dir is not None:
                check_writable(Path(each.save_dir) / "run.log")
        if self.subcommand == "fit":
            self._refuse_the_folder_of_another_run()
        for each in self.trainer.loggers:
            if isinstance(each, CSVLogger):
                take_up_csv(each, step=self._first_step())

    def _first_step(self) -> int | None:
        """The step at which a training goes on; None where it begins, or nothing is trained."""
        checkpoint = self.config[self.subcommand].get("ckpt_path") if self.subcommand == "fit" else None
        return torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"] if checkpoint else None

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Replace Lightning's half precision by one that keeps the batch as it is."""
        settings = self.config_init[self.subcommand].trainer
        if settings.precision in ("bf16-true", "16-true"):
            kwargs["plugins"] = [*settings.plugins, HalfWeights(settings.precision)]
            kwargs["precision"] = None
        return super().instantiate_trainer(**kwargs)

    def _refuse_the_folder_of_another_run(self) -> None:
        # before any callback writes there; the Trainer itself learns of the checkpoint only later
        folder = run_folder(self.trainer) or Path(self.trainer.default_root_dir) / "checkpoints"
        last = folder / "last.ckpt"
        begins = self.config["fit"].get("ckpt_path")
        if (begins is None or _is_warm_start(begins)) and last.exists():
            raise InputError(
                f"{folder} holds a run already: go on with --ckpt_path {last}, "
                "or choose another --trainer.logger.version"
            )

    def _parse_ckpt_path(self) -> None:
        """Done by `parse_arguments`, where Lightning would let the checkpoint overrule the command line."""


def _option(args: Sequence[str], name: str) -> str | None:
    """The value of `--name value` or `--name=value`, the last one where it is given twice."""
    found = None
    for arg, after in zip(args, [*args[1:], None], strict=True):
        if arg == name:
            found = after
        elif arg.startswith(f"{name}="):
            found = arg.split("=", 1)[1]
    return found


def _going_on(config: Namespace) -> list[str]:
    """The options that `--ckpt_path last` stands for: the newest checkpoint of the run, and the run's folder."""
    chosen = config.trainer.logger
    first = chosen[0] if isinstance(chosen, list) else chosen
    settings = first.get("init_args", {}) if isinstance(first, Namespace) else {}
    if not settings.get("save_dir"):
        raise InputError("--ckpt_path is last, and no logger keeps a folder of the run: name the checkpoint's file")
    runs, version = Path(settings["save_dir"]) / (settings.get("name") or ""), settings.get("version")
    if version is None:
        folder = newest_run(runs)
        return ["--ckpt_path", str(newest_checkpoint(folder)), "--trainer.logger.version", folder.name]
    folder = runs / (f"version_{version}" if isinstance(version, int) else version)
    return ["--ckpt_path", str(newest_checkpoint(folder))]


def _is_warm_start(ckpt_path: str) -> bool:
    """Whether a checkpoint holds weights to begin with, as `tiepoint convert` writes it, and no training to go on."""
    return Path(ckpt_path).is_file() and WARM_START in torch.load(ckpt_path, map_location="meta", weights_only=True)


def _remembered(ckpt_path: str | None) -> dict[str, Any]:
    """The task and the data settings that a checkpoint remembers, empty where there is no checkpoint file to read."""
    if ckpt_path is None or ckpt_path in ("best", "last", "hpc", "registry"):
        return {}
    path = Path(ckpt_path)
    if not path.is_file():
        raise InputError(f"--ckpt_path: {path} {'is a folder' if path.is_dir() else 'does not exist'}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        task = {"class_path": content["tiepoint_task"], "init_args": dict(content["hyper_parameters"])}
    except Exception as error:  # whatever a file of another kind makes torch raise
        raise InputError(f"--ckpt_path: {path} is not a checkpoint of a tiepoint task") from error
    data = dict(content.get("datamodule_hyper_parameters", {}))
    remembered = {"model": task}
    if "_class_path" in data:
        # where the data are and how many processes read them belongs to the machine, not to the weights
        here = ("folders", "folder", "num_workers")
        settings = {name: value for name, value in data.items() if name not in here}
        remembered["data"] = {"class_path": settings.pop("_class_path"), "init_args": settings}
    for part in remembered.values():
        part["init_args"].pop("_instantiator", None)
    if WARM_START in content:
        logger.info("{} is a warm start: its weights at step 0, with a fresh optimizer", path)
        # where weights are averaged, the average begins with them too
        warnings.filterwarnings("ignore", message="The checkpoint was not created with WeightAveraging")
    return remembered


class RunCommand(Callback):
    """Writes the command line of a training into its checkpoints."""

    def __init__(self, args: Sequence[str]) -> None:
        self._args = list(args)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add it, as a list."""
        checkpoint["tiepoint_command"] = self._args


class RunConfig(SaveConfigCallback):
    """Writes the config.yaml of a run, from which it can be repeated or gone on with."""

    def __init__(self, parser: LightningArgumentParser, config: Namespace, **kwargs: Any) -> None:
        config = config.clone()
        # repeating a run must neither resume nor stop where it once did
        for name in ("ckpt_path", "debug", "break_at", "break_when"):
            config.pop(name, None)
        super().__init__(parser, config, save_to_log_dir=False, **kwargs)

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write it for a fit alone: measuring must not replace the record of the run it measures."""
        folder = run_folder(trainer)
        if stage == "fit" and folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self.parser.save(self.config, folder / CONFIG, skip_none=False, overwrite=True)


def replay(crash: Path, device: Literal["auto", "cpu", "gpu"] = "auto") -> None:
    """Make a training step again that failed: it fails in the same way, or says that it went well.

    Args:
        crash: the folder that the failed training has written, `runs/NAME/crash`.
        device: on what; where the numbers went wrong on a GPU, "cpu" tells whether they do elsewhere.

    Raises:
        InputError: it is no such folder.
    """
    for name in (CONFIG, STATE, BATCH):
        if not (crash / name).is_file():
            raise InputError(f"{crash} is no folder of a crash, expected {name} in it")
    with tempfile.TemporaryDirectory() as scratch:
        options = {
            "config": crash / CONFIG,
            "ckpt_path": crash / STATE,
            "data": "tiepoint.crashes.CrashedBatch",
            "data.crash": crash,
            "trainer.accelerator": device,
            "trainer.devices": 1,
            "trainer.strategy": "auto",
            "trainer.logger": "false",
            "trainer.limit_val_batches": 0,
            "trainer.default_root_dir": scratch,
        }
        try:
            main(["fit", *(f"--{name}={value}" for name, value in options.items())], [Replay()])
        except StepWentWellError as done:
            logger.info("{}", done)


def main(args: list[str], callbacks: Sequence[Callback] = ()) -> None:
    """Run `fit`, `validate`, `test` or `predict`.

    Args:
        args: the command line, the verb first.
        callbacks: further ones, the last to be called.

    Raises:
        InputError: an option or a file is wrong.
        WorkError: the training failed.
    """
    logs.setup()
    if sys.breakpointhook is sys.__breakpointhook__ and "PYTHONBREAKPOINT" not in os.environ:
        sys.breakpointhook = breakpoint_hook
    # classes can then be named without their module in recipes and on the command line
    for room in (tasks, models, data):
        for module in iter_modules(room.__path__, f"{room.__name__}."):
            import_module(module.name)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_argv(args))
        if args[0] != "fit":
            stack.enter_context(warnings.catch_warnings())
            # true of resuming alone: what averages and keeps the weights in training is not needed to measure them
            warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint need to be provided")
            warnings.filterwarnings("ignore", message="The dirpath has changed")
            # the averaged weights are the checkpoint's own
            warnings.filterwarnings("ignore", message="You're using the WeightAveraging callback, but loading")
        try:
            TiepointCLI(
                BaseTask,
                L.LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                parser_class=TiepointParser,
                seed_everything_default=0,
                auto_configure_optimizers=False,
                save_config_callback=RunConfig,
                trainer_defaults={
                    "callbacks": [
                        *(SeededSteps(), CrashCapture(), Progress(), RunFolder(), RunCommand(args), PairPictures()),
                        *(MatchPictures(), MapPictures(), PredictionWriter(), BenchmarkReport(), *callbacks),
                    ],
                    "plugins": [{"class_path": "tiepoint.resume.AtomicCheckpoints"}],
                    "enable_model_summary": False,
                    "logger": {
                        "class_path": f"{TensorBoardLogger.__module__}.TensorBoardLogger",
                        "init_args": {"save_dir": "runs", "name": ""},
                    },
                },
            )
        except FloatingPointError as error:
            raise WorkError(str(error)) from error
        except SIGTERMException as error:
            sys.stderr.write("tiepoint: stopped by SIGTERM; --ckpt_path last goes on\n")
            raise SystemExit(128 + signal.SIGTERM) from error
        except MisconfigurationException as error:
            raise InputError(str(error)) from error
        except RuntimeError as error:
            if "DataLoader worker" in str(error):
                raise WorkError(
                    f"a process that reads the data has ended ({' '.join(str(error).split())}); fewer of them need "
                    "less memory: --data.num_workers; --ckpt_path last goes on"
                ) from error
            if "Error(s) in loading state_dict" not in str(error):
                raise
            reason = " ".join(str(error).splitlines()[1].split())
            raise InputError(f"--ckpt_path: {_option(args, '--ckpt_path')} does not fit the model: {reason}") from error


@contextlib.contextmanager
def _argv(args: list[str]) -> Any:
    """Stand in for sys.argv, which LightningCLI insists to read itself."""
    # the script's own path where there is one: Lightning starts the other processes of a run by it
    script = sys.argv[0] if Path(sys.argv[0]).stem == "tiepoint" else "tiepoint"
    before, sys.argv = sys.argv, [script, *args]
    try:
        yield
    finally:
        sys.argv = before
