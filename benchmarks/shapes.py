"""What the network shapes cost: parameters, multiplications, time on ONNX Runtime, time of a training step.

python benchmarks/shapes.py --json shapes.json
python benchmarks/shapes.py --checkpoints a.ckpt b.pt --repeats 50

Weights do not matter for the cost, so without --checkpoints the shapes are untrained. How well they match is told by
`tiepoint benchmark`.
"""

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from tiepoint.checkpoints import read_weights
from tiepoint.conversion.graphs import OPSET
from tiepoint.errors import InputError
from tiepoint.evaluation.environment import environment, pinned_threads
from tiepoint.files import atomic_path
from tiepoint.models.base import Extractor
from tiepoint.models.blocks import deployed
from tiepoint.models.eighth import EighthExtractor
from tiepoint.models.pooled import PooledExtractor
from tiepoint.models.pyramid import PyramidExtractor

SIZE = (480, 640)
KEYPOINTS = 2048
VIEWS = (16, 3, 256, 320)  # of a training step
SHAPES: dict[str, Callable[[], Extractor]] = {
    "pyramid 16-24-64-64-64": lambda: PyramidExtractor((16, 24, 64, 64, 64)),
    "pyramid 16-24-64-64-64, branches": lambda: PyramidExtractor((16, 24, 64, 64, 64), branches=True),
    "pyramid 16-32-64-96-128": lambda: PyramidExtractor((16, 32, 64, 96, 128)),
    "pyramid 16-24-48-96-128": PyramidExtractor,
    "eighth (XFeat's shape)": EighthExtractor,
    "eighth, branches": lambda: EighthExtractor(branches=True),
    "pooled (EdgePoint2's shape)": PooledExtractor,
    "pooled, branches": lambda: PooledExtractor(branches=True),
}


@dataclass(frozen=True)
class Cost:
    """What one network costs; times are medians, in milliseconds."""

    name: str
    trained_parameters: int
    deployed_parameters: int
    gmac: float
    """Of the maps of one image of `SIZE`, 10⁹ multiplications with addition, after fusing."""
    network_ms: float
    """From a grey image to the maps."""
    extractor_ms: float
    """From a colour image, uint8, to `KEYPOINTS` described keypoints."""
    training_ms: float | None
    """Forward and backward of the maps of `VIEWS`, bfloat16, channels last."""


class _Network(nn.Module):
    """Grey image to maps."""

    def __init__(self, extractor: Extractor) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, grey: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.extractor.maps(grey))


class _Whole(nn.Module):
    """Photograph to keypoints."""

    def __init__(self, extractor: Extractor) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, photo: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.extractor(photo.permute(0, 3, 1, 2).float() / 255, KEYPOINTS))


def session(module: nn.Module, example: Tensor, *, threads: int) -> Callable[[], None]:
    """One run of a module on ONNX Runtime, with the example as its input."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations inside its exporter
        path = Path(folder) / "graph.onnx"
        torch.onnx.export(
            module.eval(), (example,), path, dynamo=True, verbose=False, external_data=False, opset_version=OPSET
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        graph = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {graph.get_inputs()[0].name: example.numpy()}
    return lambda: void(graph.run(None, feed))


def step(model: Extractor, *, device: str) -> Callable[[], None]:
    """One forward and backward pass as in training, without losses and optimizer."""
    model = model.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    views = torch.rand(VIEWS, device=device).contiguous(memory_format=torch.channels_last)

    def once() -> None:
        with torch.autocast(device, torch.bfloat16):
            maps = model.maps(views)
        sum((each.float().square().mean() for each in maps), torch.zeros((), device=device)).backward()  # type: ignore[no-untyped-call]
        model.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()

    return once


def void(_: object) -> None:
    """Forget a result."""


def in_turn(runs: dict[str, Callable[[], None]], repeats: int, *, title: str) -> dict[str, float]:
    """Median milliseconds of each run; all take turns, so that what else the machine does falls on all alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for index in tqdm(range(repeats + 2), desc=title):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if index >= 2:  # the first two warm up
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def parameters(model: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for parameter in model.parameters())


def gmac(extractor: Extractor) -> float:
    """10⁹ multiplications with addition for the maps of one image."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        extractor.maps(torch.zeros(1, 1, *SIZE))
    return float(counter.get_total_flops() / 2e9)


def measure(models: dict[str, Extractor], options: argparse.Namespace) -> list[Cost]:
    """One row a model."""
    random = np.random.default_rng(0)
    photo = torch.from_numpy(random.integers(0, 256, (1, *SIZE, 3), np.uint8))
    fused = {name: deployed(model) for name, model in models.items()}
    networks, wholes = {}, {}
    for name, model in tqdm(fused.items(), desc="export"):
        networks[name] = session(_Network(model), photo[..., 0].unsqueeze(1) / 255, threads=options.threads)
        wholes[name] = session(_Whole(model), photo, threads=options.threads)
    network_ms = in_turn(networks, options.repeats, title="network")
    extractor_ms = in_turn(wholes, options.repeats, title="extractor")
    counts = {name: parameters(model) for name, model in models.items()}
    training_ms: dict[str, float] = {}
    if options.steps:
        steps = {name: step(model, device=options.device) for name, model in models.items()}
        training_ms = in_turn(steps, options.steps, title="training")
    return [
        Cost(
            name,
            counts[name],
            parameters(model),
            gmac(model),
            network_ms[name],
            extractor_ms[name],
            training_ms.get(name),
        )
        for name, model in fused.items()
    ]


def table(rows: Sequence[Cost]) -> str:
    """One line a network; training relative to the first."""
    lines = [
        f"{'':<34}{'parameters, k':>20}{'GMAC':>8}{'network':>10}{'extractor':>11}{'training':>10}",
        f"{'':<34}{'trained':>10}{'deployed':>10}{'':>8}{'ms':>10}{'ms':>11}{'relative':>10}",
    ]
    for row in rows:
        ratio = f"{row.training_ms / rows[0].training_ms:.2f}" if row.training_ms and rows[0].training_ms else "–"
        lines.append(
            f"{row.name[-33:]:<34}{row.trained_parameters / 1e3:>10.1f}{row.deployed_parameters / 1e3:>10.1f}"
            f"{row.gmac:>8.2f}{row.network_ms:>10.1f}{row.extractor_ms:>11.1f}{ratio:>10}"
        )
    return "\n".join(lines)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=Path, nargs="+", default=[], help=".ckpt or .pt files to measure instead")
    parser.add_argument("--repeats", type=int, default=30, help="images a network, all in turn")
    parser.add_argument("--steps", type=int, default=5, help="training steps a network, all in turn; 0 leaves them out")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of the training steps")
    parser.add_argument("--threads", type=int, default=2, help="of everything that computes")
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; the exit code is 2 where a file is wrong."""
    options = arguments(argv)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells that torchvision is missing: nothing needs it
    try:
        models = {str(path): read_weights(path).extractor for path in options.checkpoints}
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with pinned_threads(options.threads):
        rows = measure(models or {name: make() for name, make in SHAPES.items()}, options)
    print(f"{SIZE[1]}×{SIZE[0]}, {KEYPOINTS} keypoints, ONNX Runtime on {options.threads} threads; training: {VIEWS}")
    print(table(rows))
    if options.json:
        content = {"rows": [asdict(row) for row in rows], "environment": environment(options.threads)}
        with atomic_path(options.json) as path:
            path.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
