"""Train and measure a network that takes noise out of photographs."""

from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from tiepoint.data.noisy import SIGMAS
from tiepoint.models.denoise import DenoiseNetwork
from tiepoint.ops.noise import gaussian_noise, noise_level, psnr, ssim
from tiepoint.tasks.base import BaseTask, OptimizerName
from tiepoint.tasks.scores import MeanScores

Batch = dict[str, Any]


class DenoiseTask(BaseTask):
    """A network that finds the noise of photographs, whose strength is estimated.

    Args:
        model: the network, `DenoiseNetwork()` if None.
        lr: peak learning rate.
        weight_decay: of the optimizer.
        warmup_steps: steps over which the rate rises linearly.
        optimizer: "adamw" or "muon", see `tasks.base.build_optimizer`.
    """

    model: DenoiseNetwork

    def __init__(
        self,
        model: DenoiseNetwork | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        warmup_steps: int = 200,
        optimizer: OptimizerName = "adamw",
    ) -> None:
        super().__init__(
            model or DenoiseNetwork(), lr=lr, weight_decay=weight_decay, warmup_steps=warmup_steps, optimizer=optimizer
        )
        self.means = MeanScores()

    def forward(self, image: Tensor) -> Tensor:
        """Clean images (B, 3, H, W) of noisy ones, in full precision as the exported graph."""
        with torch.autocast(self.device.type, enabled=False):
            clean: Tensor = self.model(with_level(image))
        return clean

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Average the logarithm of the squared error: faint noise teaches as much as strong one."""
        error = (self.model(with_level(batch["noisy"])).float() - batch["clean"]).square().flatten(1).mean(1)
        loss: Tensor = (error + 1e-5).log().mean()
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/psnr", -10 * error.detach().clamp_min(1e-10).log10().mean(), prog_bar=True)
        return loss

    def batch_maps(self, batch: Batch) -> dict[str, Tensor]:
        """Crops with noise and without."""
        return {"noisy": batch["noisy"], "clean": batch["clean"]}

    def validation_step(self, batch: Batch, batch_idx: int) -> Batch:
        """Measure held-out crops.

        Returns:
            `maps`, for pictures: noisy, found and clean.
        """
        noisy, clean = batch["noisy"], batch["clean"]
        found = self(noisy)
        self.means.update("psnr", psnr(found, clean))
        self.means.update("gain", psnr(found, clean) - psnr(noisy, clean))
        return {"maps": {"noisy": noisy, "found": found, "clean": clean}}

    def on_validation_epoch_end(self) -> None:
        """Log the means."""
        for name, value in self.means.compute().items():
            self.log(f"val/{name}", value, prog_bar=name == "psnr", sync_dist=True)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Measure a whole image at each strength of white noise, which is the same in every run."""
        clean = batch["clean"]
        name = Path(self.trainer.datamodule.tests[dataloader_idx]).stem  # type: ignore[attr-defined]
        for sigma in SIGMAS:
            generator = Generator(clean.device).manual_seed(1000 * sigma + int(batch["seed"]))
            source = clean[:, :1] if bool(batch["grey"]) else clean
            noisy = gaussian_noise(source, clean.new_tensor([float(sigma)]), generator=generator).expand_as(clean)
            found = self(noisy)
            if bool(batch["grey"]):
                found, reference = found.mean(1, keepdim=True), clean[:, :1]
            else:
                reference = clean
            self.means.update(f"{name}/psnr@{sigma}", psnr(found, reference))
            self.means.update(f"{name}/ssim@{sigma}", ssim(found, reference))

    def on_test_epoch_end(self) -> None:
        """Log the means of each set."""
        for name, value in self.means.compute().items():
            self.log(f"test/{name}", value, sync_dist=True)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The clean images."""
        return self(batch["noisy"])  # type: ignore[no-any-return]


def with_level(noisy: Tensor) -> Tensor:
    """Images (B, 3, H, W) with the estimated deviation of their noise as a fourth channel."""
    level = noise_level(noisy).reshape(-1, 1, 1, 1) / 255
    return torch.cat((noisy, level.expand(-1, 1, *noisy.shape[-2:])), dim=1)
