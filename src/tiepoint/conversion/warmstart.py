"""Lightning checkpoints of weights that come from elsewhere: what a training can begin with."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch

from tiepoint.building import find_class
from tiepoint.checkpoints import WARM_START, Weights
from tiepoint.errors import InputError
from tiepoint.files import atomic_path
from tiepoint.tasks.base import BaseTask

_TASKS = {False: "tiepoint.tasks.matching.MatchingTask", True: "tiepoint.tasks.attention.AttentionTask"}


def write_ckpt(path: Path, weights: Weights, *, allow: Sequence[str] = ()) -> None:
    """Write a checkpoint with which `tiepoint fit --ckpt_path` begins: at step 0, with a fresh optimizer.

    The task is the one that the weights were trained by, with its settings, where that is known, and else
    `MatchingTask`, or `AttentionTask` where there is a matcher. It validates, tests and predicts like any other.

    Args:
        path: the file to write.
        weights: the networks.
        allow: packages beside tiepoint and kornia whose tasks may be imported.

    Raises:
        InputError: the task that the weights name is not one of this version.
    """
    title = "the training that the weights come from"
    told = weights.metadata.get("task")
    usual = {"class_path": _TASKS[weights.matcher is not None], "init_args": {}}
    known: dict[str, Any] = told if isinstance(told, dict) else usual
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
