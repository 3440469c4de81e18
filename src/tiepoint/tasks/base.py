"""What every task shares: hyperparameters that survive, an optimizer, a loss that must be finite."""

import math
from collections.abc import Iterable
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from tiepoint.models.base import Network, spec_of

OptimizerName = Literal["adamw", "muon"]
SMALLEST_MATRIX = 8  # rows and columns that a kernel must have for its singular values to say much


class BaseTask(L.LightningModule):
    """A model with its optimizer.

    The checkpoint remembers how to build its networks as plain data (class path and arguments), however the task was
    made, so that `load_from_checkpoint` needs no pickled code.

    Args:
        model: the network.
        lr: peak learning rate.
        weight_decay: of the optimizer.
        warmup_steps: steps over which the rate rises linearly, at most a quarter of all; then it falls as a cosine
            to a hundredth.
        optimizer: see `build_optimizer`.
        networks: further ones, by the names of their arguments.
    """

    def __init__(
        self,
        model: Network,
        *,
        lr: float = 2e-3,
        weight_decay: float = 1e-4,
        warmup_steps: int = 100,
        optimizer: OptimizerName = "adamw",
        **networks: Network,
    ) -> None:
        super().__init__()
        networks["model"] = model
        self.save_hyperparameters(ignore=list(networks))
        specs = {name: spec_of(network) for name, network in networks.items()}
        self.save_hyperparameters(specs | {"_instantiator": "lightning.pytorch.cli.instantiate_module"})
        # the class is known to whoever loads; LightningCLI's entry would make it an untyped dictionary
        self.hparams.pop("_class_path", None)
        self.model = model
        self.lr, self.weight_decay, self.warmup_steps = lr, weight_decay, warmup_steps
        self.optimizer_name = optimizer

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Linear warm-up, cosine decay over the steps that the Trainer foresees."""
        optimizer = build_optimizer(self.optimizer_name, self.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        total = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: _warmup_cosine(step, self.warmup_steps, total)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """After a resume, let this task's rate and decay win over those that the checkpoint remembers."""
        for optimizer, config in zip(self.trainer.optimizers, self.trainer.lr_scheduler_configs, strict=True):
            schedule = config.scheduler
            assert isinstance(schedule, torch.optim.lr_scheduler.LambdaLR)
            schedule.base_lrs = [self.lr for _ in optimizer.param_groups]
            for group, factor in zip(optimizer.param_groups, schedule.lr_lambdas, strict=True):
                group["lr"] = self.lr * factor(schedule.last_epoch)
            optimizer.param_groups[0]["weight_decay"] = self.weight_decay

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Name the task, so that a command can build it from the checkpoint alone."""
        checkpoint["tiepoint_task"] = f"{type(self).__module__}.{type(self).__qualname__}"

    def batch_maps(self, batch: Any) -> dict[str, Tensor]:
        """What a picture of a training batch shows side by side, (B, 1 or 3, H, W) in [0, 1] each; here nothing."""
        return {}

    def setup(self, stage: str) -> None:
        """Lay the weights out as convolutions read them fastest, on CPUs and tensor cores alike.

        Here and not later: several processes exchange gradients in the layout that the weights have when they begin,
        and another one afterwards makes them exchange the wrong numbers without a word.
        """
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Refuse to spread a loss that is not finite: torch may crash on NaN coordinates in its backward pass.

        Raises:
            FloatingPointError: naming the step, the batch and the value.
        """
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"loss is {loss.item()} at step {self.global_step} (epoch {self.current_epoch}, "
                f"batch {self.trainer.fit_loop.batch_idx}); the weights are still those of the step before"
            )
        super().backward(loss, *args, **kwargs)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Refuse to take a step along a gradient that is not finite.

        With precision 16-mixed such gradients belong to the search for the loss scale, which skips them by itself.

        Raises:
            FloatingPointError: naming the step and the first weights whose gradient is not finite.
        """
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            return
        named = [(name, weights.grad) for name, weights in self.named_parameters() if weights.grad is not None]
        if torch.nn.utils.get_total_norm([gradient for _, gradient in named]).isfinite():
            return
        broken = next((name for name, gradient in named if not gradient.isfinite().all()), "all weights together")
        raise FloatingPointError(
            f"the gradient of {broken} is not finite at step {self.global_step}; "
            "the weights are still those of the step before"
        )


def build_optimizer(
    name: OptimizerName, parameters: Iterable[torch.nn.Parameter], *, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """An optimizer of what is learned; the parameters that decay are its first group.

    "adamw" is Loshchilov and Hutter's (ICLR 2019). "muon" makes the steps of kernels orthogonal (Jordan et al., "Muon",
    2024), as large as AdamW's at the same rate (Liu et al., "Muon is scalable for LLM training", 2025, eq. 4); biases,
    factors and kernels with few rows or columns take AdamW's steps, without decay. A step costs a little more.
    """
    learned = [each for each in parameters if each.requires_grad]
    if name == "adamw":
        kernels = [each for each in learned if each.ndim > 1]
        rest = [each for each in learned if each.ndim <= 1]  # biases, norms and scales
        groups: list[dict[str, Any]] = [{"params": kernels}, {"params": rest, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay, betas=(0.9, 0.99))
    from pytorch_optimizer import Muon  # it loads a hundred other optimizers

    kernels = [each for each in learned if each.ndim > 1 and min(each.flatten(1).shape) >= SMALLEST_MATRIX]
    chosen = set(map(id, kernels))
    rest = [each for each in learned if id(each) not in chosen]
    matrices = {"params": kernels, "use_muon": True, "use_adjusted_lr": True, "lr": lr, "weight_decay": weight_decay}
    others = {"params": rest, "use_muon": False, "lr": lr, "betas": (0.9, 0.99), "eps": 1e-8}
    return Muon([matrices, others])  # type: ignore[no-any-return]


def _warmup_cosine(step: int, warmup: int, total: float) -> float:
    """Factor of the learning rate: 0 to 1 over `warmup`, then a cosine to 0.01 at `total`."""
    rise = min(1.0, (step + 1) / max(1, min(warmup, total / 4)))
    if not math.isfinite(total):
        return rise
    progress = min(1.0, step / max(1, total))
    return rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
