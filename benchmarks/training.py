"""How many pairs a second the training takes, and where the time of a step goes, by Lightning's own profiler.

python benchmarks/training.py --photos PHOTOS
python benchmarks/training.py --photos PHOTOS --devices 2 --threads 1     two processes, half a batch each
python benchmarks/training.py --photos PHOTOS --compare     beside the same training in a loop written by hand
python benchmarks/training.py --photos PHOTOS --compiled --teacher aliked-n16 --teacher_weights FILE

On a GPU the queue of kernels is emptied after each part, so that the parts are true and the sum is an upper bound.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import lightning as L
import torch
from lightning.pytorch.profilers import SimpleProfiler
from torch.optim.swa_utils import AveragedModel

from tiepoint.callbacks import AverageWeights
from tiepoint.data.photos import PhotoPairs
from tiepoint.tasks.matching import MatchingTask

CLIP = 2.0  # of the gradient, as in recipes/photos.yaml
PARTS = {"on_after_batch_transfer": "pairs", "training_step": "forward", "backward": "backward"}


class Parts(SimpleProfiler):
    """Durations that include what the device still has to do."""

    def start(self, action_name: str) -> None:
        """See `SimpleProfiler`."""
        _finish()
        super().start(action_name)

    def stop(self, action_name: str) -> None:
        """See `SimpleProfiler`."""
        _finish()
        super().stop(action_name)


class Clock(L.Callback):
    """The time of the steps after the first ones."""

    def __init__(self, profiler: Parts, skipped: int) -> None:
        self.profiler, self.skipped = profiler, skipped
        self.start = self.seconds = 0.0

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Start after the warm-up; note how long it has been since."""
        _finish()
        if trainer.global_step == self.skipped:
            self.profiler.recorded_durations.clear()
            self.start = time.perf_counter()
        self.seconds = time.perf_counter() - self.start


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Train for some steps by the Trainer; milliseconds of each part of one."""
    profiler = Parts()
    clock = Clock(profiler, args.skipped)
    data = PhotoPairs(args.photos, batch_size=args.batch_size // args.devices, num_workers=args.workers, ease=0.0)
    task = MatchingTask(teacher=args.teacher, teacher_weights=args.teacher_weights, compiled=args.compiled)
    trainer = L.Trainer(
        max_steps=args.skipped + args.steps,
        precision="bf16-mixed",
        gradient_clip_val=CLIP,
        devices=args.devices,
        strategy="ddp" if args.devices > 1 else "auto",
        profiler=profiler,
        callbacks=[AverageWeights(), clock],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        limit_val_batches=0,
    )
    trainer.fit(task, data)
    spent = {
        part: sum(sum(times) for name, times in profiler.recorded_durations.items() if name.endswith(f".{action}"))
        for action, part in (PARTS | {"optimizer_step": "optimizer"}).items()
    }
    spent["optimizer"] -= spent["forward"] + spent["backward"]  # they run within its closure
    spent["rest"] = clock.seconds - sum(spent.values())
    return {
        "device": str(task.device) if task.device.type == "cpu" else torch.cuda.get_device_name(),
        "processes": args.devices,
        "threads": torch.get_num_threads(),
        "pairs_per_second": args.batch_size * args.steps / clock.seconds,
        "ms_per_step": 1000 * clock.seconds / args.steps,
        "parts_ms": {name: 1000 * seconds / args.steps for name, seconds in spent.items()},
        "busy": 1 - spent["rest"] / clock.seconds,
    }


class Quiet(MatchingTask):
    """The task without a Trainer to log to."""

    def log(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    def log_dict(self, *_: Any, **__: Any) -> None:
        """Nothing."""


def by_hand(args: argparse.Namespace, *, one_by_one: bool) -> dict[str, float]:
    """The speed of the same training in a loop that is written out.

    Args:
        args: the command line.
        one_by_one: read each photo, make its pair, go forth and back, all by itself and in full precision, and add the
            gradients up, as the loops of many a published matcher do; else in batches, with all that the recipe has.
    """
    data = PhotoPairs(args.photos, batch_size=args.batch_size, num_workers=0 if one_by_one else args.workers)
    data.prepare_data()
    data.setup("fit")
    task = Quiet()
    trainer = SimpleNamespace(estimated_stepping_batches=10**6, global_step=10**5)
    task.trainer = trainer  # type: ignore[assignment]
    if not one_by_one:
        task.setup("fit")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task.to(device).train()
    averaged = AveragedModel(task, avg_fn=lambda mean, new, _: mean + 0.002 * (new - mean))
    optimizer = torch.optim.AdamW(task.parameters(), lr=2e-3, weight_decay=1e-4)
    steps = args.skipped + args.steps
    loader = iter(data.train_dataloader())
    draws = iter(data.train_dataloader().sampler)
    clip, start = torch.nn.utils.clip_grad_norm_, 0.0
    for step in range(steps):
        if step == args.skipped:
            _finish()
            start = time.perf_counter()
        optimizer.zero_grad()
        if one_by_one:
            photos = (data.train_dataloader().dataset[next(draws)]["photo"] for _ in range(args.batch_size))
            batches = ({"photo": photo.unsqueeze(0)} for photo in photos)
        else:
            batches = (batch for batch in [next(loader)])
        for batch in batches:
            pairs = data.on_after_batch_transfer({name: value.to(device) for name, value in batch.items()}, 0)
            with torch.autocast(device.type, torch.bfloat16, enabled=not one_by_one):
                loss = task.training_step(pairs, step)
            torch.autograd.backward(loss / (args.batch_size if one_by_one else 1))
        clip(task.parameters(), CLIP)
        optimizer.step()
        averaged.update_parameters(task)
    _finish()
    seconds: float = time.perf_counter() - start
    return {"pairs_per_second": args.batch_size * args.steps / seconds}


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """The Trainer beside the loops, all on the same cores, in turns: a machine is not always equally fast.

    Each in a process of its own, as if started for itself; medians of the turns, ratios within a turn.
    """
    cores = args.threads or torch.get_num_threads()
    ways = {
        "Trainer": ["--threads", str(cores)],
        "Trainer, a process a core": ["--threads", "1", "--devices", str(cores)],
        "bare loop": ["--threads", str(cores), "--way", "bare"],
        "one pair at a time": ["--threads", str(cores), "--way", "single"],
    }
    turns = [{name: _alone(args, options) for name, options in ways.items()} for _ in range(args.turns)]
    slowest = "one pair at a time"
    return {
        "cores": cores,
        "pairs_per_second": {name: median(turn[name] for turn in turns) for name in ways},
        "times_as_fast": {name: median(turn[name] / turn[slowest] for turn in turns) for name in ways},
        "overhead": median(turn["bare loop"] / turn["Trainer"] - 1 for turn in turns),
        "turns": turns,
    }


def _alone(args: argparse.Namespace, options: list[str]) -> float:
    """Pairs per second of this script with other options."""
    threads = options[options.index("--threads") + 1]
    same = ("photos", "steps", "skipped", "batch_size", "workers")
    shared = [f"--{name}={getattr(args, name)}" for name in same]
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        subprocess.run(
            [sys.executable, __file__, *shared, *options, "--json", str(found)],
            env=os.environ | {"OMP_NUM_THREADS": threads},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        return float(json.loads(found.read_text())["pairs_per_second"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True, help="folder of photos")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--skipped", type=int, default=8, help="steps of the warm-up, not counted")
    parser.add_argument("--batch_size", type=int, default=8, help="pairs a step, of all processes together")
    parser.add_argument("--devices", type=int, default=1, help="processes")
    parser.add_argument("--threads", type=int, help="of each process")
    parser.add_argument("--workers", type=int, default=1, help="processes that decode, for each of these")
    parser.add_argument("--teacher")
    parser.add_argument("--teacher_weights", nargs="*")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--way", choices=("trainer", "bare", "single"), default="trainer", help="the Trainer or a loop")
    parser.add_argument("--compare", action="store_true", help="measure all ways, in turns")
    parser.add_argument("--turns", type=int, default=5, help="of the comparison")
    parser.add_argument("--json", help="file to write")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.compare:
        compared = compare(args)
        for name, rate in compared["pairs_per_second"].items():
            print(f"{name:<26}{rate:6.2f} pairs/s  {compared['times_as_fast'][name]:5.2f} x one pair at a time")
        print(f"the Trainer takes {compared['overhead']:.1%} longer than the bare loop")
        if args.json:
            Path(args.json).write_text(json.dumps(compared, indent=2))
        return
    found: dict[str, Any] = measure(args) if args.way == "trainer" else by_hand(args, one_by_one=args.way == "single")
    if torch.distributed.is_initialized() and torch.distributed.get_rank():
        return
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=2))
    if args.way != "trainer":
        print(f"{found['pairs_per_second']:.1f} pairs/s")
        return
    parts = "  ".join(f"{name} {ms:.0f}" for name, ms in found["parts_ms"].items())
    print(f"{found['processes']} process(es) with {found['threads']} thread(s), {found['device']}")
    print(f"{found['pairs_per_second']:.1f} pairs/s, {found['ms_per_step']:.0f} ms a step: {parts}")
    print(f"busy with pairs and network for {found['busy']:.1%} of a step; rest is photos, loggers, Lightning itself")


if __name__ == "__main__":
    main()
