"""`tiepoint benchmark`: methods side by side on public pairs; a table out, and the files of a run."""

import inspect
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tiepoint.errors import InputError, WorkError
from tiepoint.evaluation.environment import thread_variables
from tiepoint.files import check_writable

if TYPE_CHECKING:
    from tiepoint.evaluation.results import Results

METHODS = ("default", "sift", "orb")


def benchmark(
    *methods: str,
    data: str,
    sets: str | None = None,
    output: str = "benchmark",
    protocol: Literal["tiepoint", "loftr", "xfeat", "glue-factory"] = "tiepoint",
    estimator: Literal["poselib", "opencv-ransac", "opencv-magsac"] | None = None,
    thresholds: str | None = None,
    max_keypoints: int | None = None,
    long_side: int | None = None,
    seed: int | None = None,
    weights: str | None = None,
    backend: Literal["auto", "onnxruntime", "openvino", "torch"] = "auto",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int = 2,
    workers: int | None = None,
    repeats: int = 5,
    strict: bool = False,
    download: bool = False,
) -> None:
    """Measure methods side by side on public pairs, by one protocol.

    Args:
        *methods: names from `tiepoint models` or paths to .onnx, .ckpt or .pt files; the others are compared with the
            first. Without any: default sift orb.
        data: the folder that holds the benchmarks' folders, or NAME=FOLDER for each of them, separated by commas.
        sets: the benchmarks, separated by commas; without it all whose folder is there.
        output: (-o) folder of the run. What was matched before is found there again.
        protocol: the convention by which is measured.
        estimator: another robust estimator than the protocol's.
        thresholds: other inlier thresholds in pixels, separated by commas.
        max_keypoints: another number of keypoints an image at most.
        long_side: another long side of the images in pixels.
        seed: another seed of the estimator.
        weights: local weight files as METHOD=FILE, separated by commas; a further file of the same method as FILE.
        backend: what runs the embedded network and .onnx files; all others have but one.
        device: where networks run.
        threads: of everything that matches and is timed.
        workers: processes that score the matches; without it as many as there are cores.
        repeats: of the timing; 0 leaves it out.
        strict: stop at the first pair that cannot be used, instead of leaving it out.
        download: fetch the public data of sets that are named and not there.
    """
    command = _command(methods, {name: value for name, value in locals().items() if name != "methods"})
    _check_counts(threads=threads, workers=workers, repeats=repeats)
    # NumPy's BLAS asks the environment when it is loaded, which is no earlier than here
    with thread_variables(threads):
        from tiepoint.evaluation.engine import Plan, run

        folder = Path(output)
        changes = {
            "estimator": estimator,
            "thresholds": None if thresholds is None else _numbers(thresholds),
            "max_keypoints": max_keypoints,
            "long_side": long_side,
            "seed": seed,
        }
        used, absent = _sets(data, sets, download=download)
        plan = Plan(
            sets=used,
            methods=_methods(methods or METHODS, weights),
            output=folder,
            protocol=protocol,
            changes=changes,
            device=device,
            backend=backend,
            threads=threads,
            workers=workers or _cores(),
            repeats=repeats,
            strict=strict,
            command=command,
            remark=f"Not there and not measured: {', '.join(absent)}" if absent else "",
        )
        check_writable(folder / "results.json")
        _report(run(plan), folder)


def _report(results: "Results", folder: Path) -> None:
    """Write the files, print the table, and only then complain of what was left out.

    Raises:
        WorkError: pairs were left out.
    """
    from tiepoint.evaluation.report import table, write_reports
    from tiepoint.evaluation.results_io import NAME, write_results

    write_results(results, folder / NAME)
    written = write_reports(results, folder)
    sys.stdout.write(f"{table(results)}\n\n{' '.join(str(path) for path in (folder / NAME, *written))}\n")
    left_out = [f"{found.name}: {sentence}" for found in results.sets for sentence in found.left_out]
    if left_out:
        count = f"{len(left_out)} pair{'s were' if len(left_out) > 1 else ' was'} left out"
        raise WorkError(f"{count} because they cannot be used ({written[0]} lists them), the first: {left_out[0]}")


def _check_counts(*, threads: int, workers: int | None, repeats: int) -> None:
    for name, value, least in (("threads", threads, 1), ("workers", workers, 1), ("repeats", repeats, 0)):
        if value is not None and value < least:
            raise InputError(f"--{name} is {value}, expected {least} or more")


def _sets(data: str, wanted: str | None, *, download: bool) -> tuple[dict[str, Path], list[str]]:
    """The folders of the sets by name, in the order in which they are wanted; and the absent, where all are wanted."""
    from tiepoint.evaluation.benchmarks import benchmark as find
    from tiepoint.evaluation.sets import usual_folders

    root, named = _places(data)
    folders = usual_folders(root) if root else {}
    folders |= named
    if wanted is None:
        present = {name: folder for name, folder in folders.items() if folder.exists()}
        absent = [f"{name} ({folder})" for name, folder in folders.items() if name not in present]
        if not present:
            raise InputError(f"--data: {data} holds none of the benchmarks, expected one of {', '.join(absent)}")
        return present, absent
    names = _words(wanted, "--sets")
    for name in names:
        kind = find(name)
        if name not in folders:
            raise InputError(f"--data says nothing of {name}, expected {name}=FOLDER or the folder of all benchmarks")
        if download and root and name not in named:
            from tiepoint.evaluation.download import prepare

            prepare(kind, root)
        if not folders[name].exists():
            raise InputError(f"{folders[name]} does not exist, expected the data of {name}: {kind.source}")
    return {name: folders[name] for name in names}, []


def _places(data: str) -> tuple[Path | None, dict[str, Path]]:
    """The folder of all benchmarks, if one is given, and the folders given by name."""
    from tiepoint.evaluation.benchmarks import available

    roots, named = list[Path](), dict[str, Path]()
    for word in _words(data, "--data"):
        name, equals, folder = word.partition("=")
        if equals and name in available():
            if not Path(folder).exists():
                raise InputError(f"--data: {folder} does not exist, expected the data of {name}")
            named[name] = Path(folder)
            continue
        if not Path(word).is_dir():
            expected = "the folder that holds the benchmarks, or NAME=FOLDER with a name of"
            raise InputError(f"--data: {word} is not a folder, expected {expected} {', '.join(available())}")
        roots.append(Path(word))
    if len(roots) > 1:
        raise InputError(f"--data names {len(roots)} folders, {roots[0]} and {roots[1]}, expected one or NAME=FOLDER")
    return next(iter(roots), None), named


def _methods(names: tuple[str, ...], weights: str | None) -> dict[str, tuple[str, ...]]:
    """The weight files of the methods by name."""
    from tiepoint.runtime import OPENCV, embedded_models
    from tiepoint.runtime.peers import PEERS

    for name in names:
        if name not in (*embedded_models(), *OPENCV, *PEERS) and not Path(name).is_file():
            known = "a name that `tiepoint models` lists, or a path to an .onnx, .ckpt or .pt file"
            raise InputError(f"there is no method {name!r}, expected {known}")
        if names.count(name) > 1:
            raise InputError(f"the method {name} is named {names.count(name)} times, expected each once")
    files: dict[str, tuple[str, ...]] = dict.fromkeys(names, ())
    name = ""
    for word in _words(weights, "--weights") if weights is not None else ():
        head, equals, tail = word.partition("=")
        name, file = (head, tail) if equals else (name, word)
        if name not in files:
            raise InputError(f"--weights: {word} belongs to none of {', '.join(names)}, expected METHOD=FILE")
        files[name] += (file,)
    return files


def _words(text: str, option: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise InputError(f"{option} is {text!r}, expected words separated by commas")
    return words


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError as error:
        raise InputError(f"--thresholds is {text!r}, expected numbers separated by commas") from error


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _command(methods: tuple[str, ...], given: Mapping[str, Any]) -> str:
    """The command line that asks for the same: what differs from the defaults."""
    defaults = {name: each.default for name, each in inspect.signature(benchmark).parameters.items()}
    words = ["tiepoint", "benchmark", *methods]
    for name, value in given.items():
        if value != defaults[name]:
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return shlex.join(words)
