"""Where weights come from: what the checkpoint of a training tells, without the places of files on its machine."""

import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from torch import Tensor

from tiepoint.building import check_plain

_FOLDERS = re.compile(r"[^\s\[\],'\"=]*/(?=[^\s/\[\],'\"=])")  # before a name, in what a command says
_HERE = ("folders", "folder", "num_workers")  # belong to the machine, not to the weights


def told_by(content: Mapping[str, Any], *, networks: Iterable[str], title: str) -> dict[str, Any]:
    """What a training tells of itself, without the places of files on its machine.

    Args:
        content: of its checkpoint.
        networks: names of the networks among its hyperparameters, which are told elsewhere.
        title: what an error message calls the file.

    Returns:
        Plain data: steps, epochs, data_hash, figures, and where they are known task, data and command.

    Raises:
        InputError: its settings are no plain data.
    """
    states = [state for state in (*content.values(), *_mapping(content.get("callbacks")).values()) if state]
    states = [state for state in states if isinstance(state, Mapping)]
    told: dict[str, Any] = {
        "steps": content.get("global_step"),
        "epochs": content.get("epoch"),
        "data_hash": [state["data_hash"] for state in states if "data_hash" in state],
        "figures": {},
    }
    for state in states:
        monitor, score = state.get("monitor"), state.get("current_score")
        if isinstance(monitor, str) and isinstance(score, Tensor) and score.numel() == 1:
            told["figures"][monitor] = float(score)
    settings = _mapping(content.get("datamodule_hyper_parameters"))
    parts = {
        "task": (content.get("tiepoint_task"), _mapping(content.get("hyper_parameters"))),
        "data": (settings.get("_class_path"), settings),
    }
    left_out = {"model", "matcher", *networks, *_HERE, "_class_path", "_instantiator"}
    for name, (class_path, arguments) in parts.items():
        if class_path:
            kept = {key: value for key, value in arguments.items() if key not in left_out}
            check_plain(kept, title=f"what {title} tells of its training")
            told[name] = {"class_path": class_path, "init_args": _without_places(kept)}
    if isinstance(command := content.get("tiepoint_command"), list):
        told["command"] = " ".join(["tiepoint", *(shlex.quote(_FOLDERS.sub("", str(part))) for part in command)])
    return told


def _mapping(value: object) -> Mapping[str, Any]:
    """What ought to be a dictionary and, in a file of somebody else, need not be."""
    return value if isinstance(value, Mapping) else {}


def _without_places(value: Any) -> Any:
    """Plain data in which paths are names of files alone."""
    if isinstance(value, dict):
        return {key: _without_places(part) for key, part in value.items() if key not in _HERE}
    if isinstance(value, list | tuple):
        return [_without_places(part) for part in value]
    return PurePath(value).name if isinstance(value, str) else value
