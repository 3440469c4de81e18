"""Weights of others become files that kornia's classes load: `tiepoint convert SOURCE TARGET --as CLASS`."""

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import kornia
import kornia.feature
import safetensors.torch
import torch
from loguru import logger
from torch import Tensor, nn

from tiepoint import __version__
from tiepoint.building import find_class
from tiepoint.checkpoints import sha256
from tiepoint.conversion.check_accuracy import Accuracy, corner_errors, measured
from tiepoint.conversion.check_images import check_set
from tiepoint.conversion.fitting import Entry, Fit, fit, taken
from tiepoint.conversion.foreign import ForeignState, read_foreign
from tiepoint.errors import InputError, WorkError
from tiepoint.files import atomic_path, check_writable
from tiepoint.runtime import load

TARGETS = (".pt", ".safetensors")
_VIEWS = 4  # of each image of the check set: some of these networks take seconds for a pair
_ALIKED = ("aliked-n16", "aliked-t16", "aliked-n16rot", "aliked-n32")  # two have equal shapes: the first of them


@dataclass(frozen=True)
class _Known:
    """What is known of a class of `kornia.feature`.

    Attributes:
        arguments: the ways to build it, of which the one is taken that fits best.
        optional: prefixes of the parts without which it can be used.
        matchers: by the arguments' place, the name of a matcher that needs no other weights.
        others: names of further ones that take the same.
    """

    arguments: tuple[dict[str, Any], ...]
    optional: tuple[str, ...] = ()
    matchers: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


_KNOWN = {
    "LoFTR": _Known(({"pretrained": None},), matchers=("loftr",), others=("loftr-indoor",)),
    "XFeat": _Known(({},), optional=("net.fine_matcher.",), matchers=("xfeat",), others=("xfeat-star",)),
    "XFeatModel": _Known(({},), optional=("fine_matcher.",)),
    "ALIKED": _Known(tuple({"model_name": name} for name in _ALIKED), matchers=_ALIKED),
    "DISK": _Known(({},), matchers=("disk",)),
    "DeDoDe": _Known(({"detector_model": "L", "descriptor_model": "B"},), matchers=("dedode",)),
    "LightGlue": _Known(
        (
            {"features": None, "input_dim": 256},
            {"features": None, "input_dim": 128},
            {"features": None, "input_dim": 64, "descriptor_dim": 96, "n_layers": 6, "num_heads": 1},
            {"features": None, "input_dim": 128, "add_scale_ori": True},
            {"features": None, "input_dim": 128, "add_laf": True},
        )
    ),
}


@dataclass(frozen=True)
class Adopted:
    """A network of others as a class of kornia.

    Attributes:
        class_path: of the class.
        init_args: its arguments.
        fit: key by key.
        matchers: names of those that take the file.
        accuracy: of the first of them on the check set; None where the class alone is no matcher.
    """

    class_path: str
    init_args: dict[str, Any]
    fit: Fit
    matchers: tuple[str, ...] = ()
    accuracy: Accuracy | None = None


def adopt(
    source: Path, target: Path, *, class_path: str, report: Path | None = None, allow: Sequence[str] = ()
) -> Adopted:
    """Write the weights of others as a class of kornia holds them, where they fit it whole.

    Args:
        source: a .ckpt of Lightning 1.x or 2.x, or a .pt, .pth, .bin or .safetensors file.
        target: a .pt or .safetensors file; `tiepoint match --model NAME --weights TARGET` takes it.
        class_path: such as "kornia.feature.LoFTR".
        report: a JSON file for what became of each entry; it is written where they do not fit, too.
        allow: packages whose classes may be named in the source, which passes over them, or as `class_path`.

    Raises:
        InputError: a file, ending or class is wrong, or the weights do not fit.
        WorkError: the written file holds something else.
    """
    if target.suffix not in TARGETS:
        raise InputError(f"--as makes {' and '.join(TARGETS)} files, found the target {target}")
    for path in (target, report):
        if path is not None:
            check_writable(path)
            if path.exists() and source.exists() and path.samefile(source):
                raise InputError(f"{path} is the source itself")
    cls = _class(class_path, allow)
    state = read_foreign(source, allow=allow)
    known = _known(cls)
    network, place, result = max(_fits(cls, known, state.tensors), key=lambda each: _rank(each[2]))
    # a part that may be missing is what the others have a use for
    others = () if result.of("missing") else known.others
    matchers = (*known.matchers[place : place + 1], *others)
    found = Adopted(class_path, known.arguments[place], result, matchers)
    faults = result.faults()
    try:
        if faults:
            raise InputError(f"{source} does not fit {class_path}: {result.summary()}; {_described(faults[0])}")
        with atomic_path(target) as temporary:
            _write(temporary, found, state, source)
            _check(temporary, network, taken(result, state.tensors), target)
            if matchers:
                found = replace(found, accuracy=_measured(matchers[0], temporary))
    finally:
        if report is not None:
            _write_report(report, found, state, source, target)
    return found


def _class(class_path: str, allow: Sequence[str]) -> type[nn.Module]:
    module, _, name = class_path.rpartition(".")
    if module == "kornia.feature" and not hasattr(kornia.feature, name):
        raise InputError(
            f"--as: kornia {kornia.__version__} has no {name[:60]}, expected one of {', '.join(_KNOWN)} or another "
            "network of kornia.feature"
        )
    return find_class(class_path, nn.Module, title="--as", allow=allow)


def _known(cls: type[nn.Module]) -> _Known:
    """Of a class that is not listed: built without the weights that it would fetch."""
    own = cls.__module__.startswith("kornia.")
    if own and cls.__name__ in _KNOWN:
        return _KNOWN[cls.__name__]
    pretrained = inspect.signature(cls).parameters.get("pretrained")
    return _Known(({} if pretrained is None else {"pretrained": False},))


def _fits(cls: type[nn.Module], known: _Known, tensors: Mapping[str, Tensor]) -> Iterator[tuple[nn.Module, int, Fit]]:
    for place, arguments in enumerate(known.arguments):
        try:
            network = cls(**arguments).eval()
        except (TypeError, ValueError) as error:
            raise InputError(f"--as: {cls.__name__} cannot be built without arguments: {str(error)[:160]}") from error
        yield network, place, fit(network, tensors, optional=known.optional)


def _rank(result: Fit) -> tuple[int, int]:
    """Fewest faults, and then most that fits."""
    return -len(result.faults()), len(result.of("matched", "renamed"))


def _described(entry: Entry) -> str:
    if entry.state == "missing":
        return f"{entry.name} is missing"
    if entry.state == "left over":
        return f"it has no {str(entry.source)[:100]}, so that this is another architecture"
    return f"{entry.name} is {entry.found}, expected {entry.shape}"


def _write(path: Path, found: Adopted, state: ForeignState, source: Path) -> None:
    metadata = {"source": source.name, "source_sha256": sha256(source), "tiepoint": __version__, **state.told}
    described = {"class_path": found.class_path, "init_args": found.init_args}
    tensors = taken(found.fit, state.tensors)
    if path.suffix == ".pt":
        torch.save({**described, "state_dict": tensors, "metadata": metadata}, path)
    else:
        told = json.dumps({"model": described, "metadata": metadata})
        safetensors.torch.save_file(tensors, path, metadata={"tiepoint": told})


def _check(path: Path, network: nn.Module, expected: Mapping[str, Tensor], target: Path) -> None:
    """Reads the file back, and loads it into the class.

    Raises:
        WorkError: it is not what was written.
    """
    held = read_foreign(path).tensors
    same = held.keys() == expected.keys() and all(torch.equal(held[name], value) for name, value in expected.items())
    network.load_state_dict(held, strict=False)
    own = network.state_dict()
    if not same or not all(torch.equal(own[name], value.to(own[name].dtype)) for name, value in expected.items()):
        raise WorkError(f"{target} was not written: read back, it holds other numbers than its source")


def _measured(matcher: str, path: Path) -> Accuracy:
    """What the weights achieve as a matcher; weights of something else with the same shapes achieve nothing."""
    logger.info("measuring {} with these weights on the check set", matcher)
    match = load(matcher, weights=path)
    pairs = list(check_set(views=_VIEWS))
    return measured(corner_errors((match(pair.image0, pair.image1) for pair in pairs), pairs))


def _write_report(path: Path, found: Adopted, state: ForeignState, source: Path, target: Path) -> None:
    content = {
        "tiepoint": __version__,
        "kornia": kornia.__version__,
        "source": str(source),
        "source_sha256": sha256(source),
        "target": str(target),
        "class_path": found.class_path,
        "init_args": found.init_args,
        "passed": not found.fit.faults(),
        "summary": found.fit.summary(),
        "prefix": found.fit.prefix,
        "passed_over": state.passed_over,
        "check_set": None if found.accuracy is None else asdict(found.accuracy),
        "entries": [asdict(entry) for entry in found.fit.entries],
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
