"""Lightning checkpoints of weights that come from elsewhere: what a training can begin with."""

import inspect
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, get_args, get_type_hints

import lightning as L
import torch

from tiepoint import tasks
from tiepoint.building import find_class
from tiepoint.checkpoints import WARM_START, Weights
from tiepoint.errors import InputError
from tiepoint.files import atomic_path
from tiepoint.models.base import Extractor
from tiepoint.tasks.base import BaseTask

_TASKS = {False: "tiepoint.tasks.matching.MatchingTask", True: "tiepoint.tasks.attention.AttentionTask"}


def write_ckpt(path: Path, weights: Weights, *, allow: Sequence[str] = ()) -> None:
    """Write a checkpoint with which `tiepoint fit --ckpt_path` begins: at step 0, with a fresh optimizer.

    The task is the one that the weights were trained by, with its settings, where that is known, and else
    `MatchingTask`, `AttentionTask` where there is a matcher, or the one whose model is of the network's class. It
    validates, tests and predicts like any other.

    Args:
        path: the file to write.
        weights: the networks.
        allow: packages beside tiepoint and kornia whose tasks may be imported.

    Raises:
        InputError: the task that the weights name is not one of this version, or none trains such a network.
    """
    title = "the training that the weights come from"
    told = weights.metadata.get("task")
    known: dict[str, Any] = told if isinstance(told, dict) else {"class_path": _usual(weights), "init_args": {}}
    kind: type[BaseTask] = find_class(known.get("class_path"), BaseTask, title=title, allow=allow)
    networks: dict[str, Any] = weights.networks()
    # hyperparameters hold what `BaseTask` was called with, too, which a task of its own need not take
    hidden = set(inspect.signature(BaseTask).parameters) - set(inspect.signature(kind).parameters)
    try:
        settings = {name: value for name, value in known.get("init_args", {}).items() if name not in hidden}
        task = kind(**networks, **settings)
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{title} does not fit {known['class_path']} of this version: {error}") from error
    content: dict[str, Any] = {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": L.__version__,
        "state_dict": task.state_dict(),
        # none, and not missing: Lightning then restores nothing and leaves the optimizer as it begins
        "optimizer_states": [],
        "lr_schedulers": [],
        "callbacks": {},
        "hparams_name": None,
        "hyper_parameters": dict(task.hparams),
        WARM_START: weights.metadata,
    }
    task.on_save_checkpoint(content)
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def _usual(weights: Weights) -> str:
    """The class path of the task for networks that do not tell theirs."""
    if isinstance(weights.model, Extractor):
        return _TASKS[weights.matcher is not None]
    for task in _all_tasks():
        hint = get_type_hints(task.__init__).get("model")
        if type(weights.model) in (hint, *get_args(hint)):
            return f"{task.__module__}.{task.__qualname__}"
    raise InputError(f"no task of this version trains {type(weights.model).__name__}, expected a .pt or .safetensors")


def _all_tasks() -> Iterator[type[BaseTask]]:
    for found in iter_modules(tasks.__path__, f"{tasks.__name__}."):
        for kind in vars(import_module(found.name)).values():
            if inspect.isclass(kind) and issubclass(kind, BaseTask) and kind.__module__ == found.name:
                yield kind
