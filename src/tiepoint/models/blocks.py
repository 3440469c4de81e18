"""The blocks that the networks are made of, and how they are fused for use."""

import copy
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_Network = TypeVar("_Network", bound=nn.Module)


def block(
    inputs: int,
    outputs: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
    relu: bool = True,
    branches: bool = False,
) -> nn.Module:
    """Convolution, batch normalisation, ReLU.

    An even kernel goes with stride 2: an output pixel is then centred on the four that it stands for, as bilinear
    enlarging takes it to be. An odd kernel with stride 2 would be centred on one of them.

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: side of the convolution; a kernel of 1 or 2 is never branched.
        stride: of the convolution.
        groups: of the convolution.
        relu: whether the ReLU is there.
        branches: train it as parallel branches; see `BranchedBlock`.
    """
    if branches and kernel > 2:
        return BranchedBlock(inputs, outputs, kernel=kernel, stride=stride, groups=groups, relu=relu)
    layers = _normalised(inputs, outputs, kernel=kernel, stride=stride, groups=groups)
    return layers.append(nn.ReLU(inplace=True)) if relu else layers


class BranchedBlock(nn.Module):
    """Parallel convolutions with a normalisation each, summed before the ReLU: RepVGG (Ding et al., CVPR 2021, §3.2).

    The branches are the full kernel, the kernel without its rim (1×1 in 3×3, 2×2 in 4×4) and, where input and output
    have the same shape, the input itself. Their sum is one convolution, which `fuse` gives.

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: side of the full kernel, 3 or more.
        stride: of the convolutions.
        groups: of the convolutions.
        relu: whether a ReLU follows the sum.
    """

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, groups: int = 1, relu: bool = True
    ) -> None:
        super().__init__()
        self.full = _normalised(inputs, outputs, kernel=kernel, stride=stride, groups=groups)
        self.inner = _normalised(inputs, outputs, kernel=kernel - 2, stride=stride, groups=groups)
        same = inputs == outputs and stride == 1 and kernel % 2 == 1
        self.identity = nn.BatchNorm2d(inputs) if same else None
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H/stride, W/stride)."""
        summed = self.full(x) + self.inner(x)
        if self.identity is not None:
            summed = summed + self.identity(x)
        return F.relu(summed, inplace=True) if self.relu else cast(Tensor, summed)

    @torch.no_grad()
    def fuse(self) -> nn.Conv2d:
        """The one convolution with bias that equals the sum of the branches in evaluation mode, ReLU not included."""
        full = _folded(self.full)
        folded = [full, _folded(self.inner)]
        if self.identity is not None:
            copying = nn.Conv2d(full.in_channels, full.out_channels, 1, groups=full.groups, bias=False)
            nn.init.dirac_(copying.weight, full.groups)
            folded.append(_folded(nn.Sequential(copying.to(full.weight), self.identity)))
        rim = [(full.kernel_size[0] - conv.kernel_size[0]) // 2 for conv in folded]
        kernels = [F.pad(conv.weight, 4 * [width]) for conv, width in zip(folded, rim, strict=True)]
        full.weight = nn.Parameter(torch.stack(kernels).sum(0))
        full.bias = nn.Parameter(torch.stack([cast(Tensor, conv.bias) for conv in folded]).sum(0))
        return full.to(next(self.parameters()).dtype)


class Residual(nn.Module):
    """Two 3×3 convolutions, to whose result the input is added (He et al., CVPR 2016, fig. 2).

    Args:
        inputs: channels in; the input passes a 1×1 convolution where their number changes.
        outputs: channels out.
        branches: train the convolutions as parallel branches.
    """

    def __init__(self, inputs: int, outputs: int, *, branches: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(
            block(inputs, outputs, branches=branches), block(outputs, outputs, relu=False, branches=branches)
        )
        self.shortcut = _normalised(inputs, outputs, kernel=1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W)."""
        return F.relu(self.body(x) + self.shortcut(x), inplace=True)


def enlarge(maps: Tensor, factor: int) -> Tensor:
    """(B, C, H, W) to (B, C, factor·H, factor·W), bilinear, pixel areas kept."""
    return F.interpolate(maps, scale_factor=float(factor), mode="bilinear", align_corners=False)


def deployed(network: _Network) -> _Network:
    """A copy for use, in evaluation mode, with as few convolutions as give the same function.

    Branched blocks become one convolution, and a batch normalisation right after a convolution goes into it. The
    copy's state dict is another than the original's: it is exported or run, not saved as a checkpoint.
    """
    return cast(_Network, _fused(copy.deepcopy(network).eval()))


def _fused(module: nn.Module) -> nn.Module:
    if isinstance(module, BranchedBlock):
        return nn.Sequential(module.fuse(), nn.ReLU(inplace=True) if module.relu else nn.Identity()).eval()
    for name, child in module.named_children():
        setattr(module, name, _fused(child))
    return _fuse_pairs(module) if isinstance(module, nn.Sequential) else module


def _fuse_pairs(layers: nn.Sequential) -> nn.Sequential:
    """The same layers, each convolution with the normalisation that follows it made one."""
    kept: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d) and kept and isinstance(kept[-1], nn.Conv2d):
            kept[-1] = _folded(nn.Sequential(kept[-1], layer)).to(kept[-1].weight.dtype)
        else:
            kept.append(layer)
    return nn.Sequential(*kept).eval()


def _normalised(inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution without bias and normalisation; the output has 1/stride of the input's size."""
    padding = (kernel - stride) // 2 if kernel % 2 == 0 else kernel // 2
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


def _folded(pair: nn.Sequential) -> nn.Conv2d:
    """A convolution and its normalisation as one convolution, in double precision for what is summed afterwards."""
    convolution, norm = copy.deepcopy(pair).double().eval()
    assert isinstance(convolution, nn.Conv2d)
    return fuse_conv_bn_eval(convolution, cast(nn.BatchNorm2d, norm))
