"""The blocks that the networks are made of, and how they are fused for use."""

import copy
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tiepoint.models.base import Network

_Network = TypeVar("_Network", bound=nn.Module)
# a normalisation goes into the convolution before it, in two dimensions and in three
_CONVOLUTIONS, _NORMS = (nn.Conv2d, nn.Conv3d), (nn.BatchNorm2d, nn.BatchNorm3d)


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
        folded = [cast(nn.Conv2d, _folded(branch)) for branch in (self.full, self.inner)]
        full = folded[0]
        if self.identity is not None:
            copying = nn.Conv2d(full.in_channels, full.out_channels, 1, groups=full.groups, bias=False)
            nn.init.dirac_(copying.weight, full.groups)
            folded.append(cast(nn.Conv2d, _folded(nn.Sequential(copying.to(full.weight), self.identity))))
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
    copy's state dict is another than the original's: it is exported or run, not saved as a checkpoint. `unfused` goes
    the way back.
    """
    return cast(_Network, _fused(copy.deepcopy(network).eval()))


def unfused(network: nn.Module, fused: Mapping[str, Tensor], rest: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict for training of a network that is at hand as `deployed` has made it.

    A kernel is divided by what its normalisation multiplied it with, after the other branches have been taken off it:
    equal to the original up to the rounding of the fused one.

    Args:
        network: of the same class and arguments, with any weights.
        fused: state dict of the deployed network, or some of it.
        rest: what that one does not hold, see `remainder`.
    """
    kept, folds = _correspondence(network)
    state = {name: fused[other] for name, other in kept.items() if other in fused} | dict(rest)
    for fold in folds:
        name = f"{fold.convolution}.weight"
        if name not in state and f"{fold.fused}.weight" in fused:
            state[name] = _kernel(network, fold, fused[f"{fold.fused}.weight"], state)
    return state


def remainder(network: nn.Module, fused: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `unfused` needs beside the state dict of the deployed network, or the part of it that is at hand.

    The statistics and factors of the normalisations, and the small kernels of the branches; and in full what cannot
    be had back.
    """
    own = network.state_dict()
    kept, folds = _correspondence(network)
    found = {name for name, other in kept.items() if other in fused}
    found |= {f"{fold.convolution}.weight" for fold in folds if f"{fold.fused}.weight" in fused}
    rest = {name: value for name, value in own.items() if name not in found}
    back = unfused(network, fused, rest)
    lost = [name for name in found if not _close(back[name], own[name])]
    return rest | {name: own[name] for name in lost}


def _close(back: Tensor, own: Tensor) -> bool:
    return back.shape == own.shape and bool((back - own).abs().max() <= 1e-5 * own.abs().max())


class _Fold(NamedTuple):
    """A convolution for use, and the names of what was summed up in it."""

    fused: str
    convolution: str
    norm: str
    inner: tuple[str, str] | None = None
    """Convolution and normalisation of the kernel without its rim."""
    identity: str | None = None
    """Normalisation of the input itself."""


def _correspondence(network: nn.Module) -> tuple[dict[str, str], list[_Fold]]:
    """Which entries of the state dict keep their values in the deployed one, by which name; and which do not."""
    kept: dict[str, str] = {}
    folds: list[_Fold] = []
    for found in _fates(network, "", ""):
        if isinstance(found, _Fold):
            folds.append(found)
        else:
            kept[found[0]] = found[1]
    own = network.state_dict().keys()
    return {name: other for name, other in kept.items() if name in own}, folds


def _fates(module: nn.Module, name: str, fused: str) -> Iterator[_Fold | tuple[str, str]]:
    """Follows `_fused`: names of modules end with a dot, or are empty."""
    if isinstance(module, BranchedBlock):
        full, inner = f"{name}full", f"{name}inner"
        identity = f"{name}identity" if module.identity is not None else None
        yield _Fold(f"{fused}0", f"{full}.0", f"{full}.1", (f"{inner}.0", f"{inner}.1"), identity)
        return
    for own in (*module._parameters, *module._buffers):
        yield name + own, fused + own
    ordered, merged, place = isinstance(module, nn.Sequential), False, 0
    for (own, child), (next_name, follower) in pairwise([*module.named_children(), ("", nn.Identity())]):
        if merged:  # with the convolution before
            merged = False
            continue
        target = f"{fused}{place if ordered else own}"
        place += 1
        if ordered and isinstance(child, _CONVOLUTIONS) and isinstance(follower, _NORMS):
            merged = True
            yield _Fold(target, name + own, name + next_name)
        else:
            yield from _fates(child, f"{name}{own}.", f"{target}.")


def _kernel(network: nn.Module, fold: _Fold, fused: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    """The kernel of a convolution before it was fused."""

    def scaled(kernel: Tensor, norm: str) -> Tensor:
        scale = _scale(network, norm, state).view(-1, 1, 1, 1)
        return F.pad(kernel.double() * scale, 4 * [(fused.shape[-1] - kernel.shape[-1]) // 2])

    own = fused.double()
    if fold.inner is not None:
        own = own - scaled(state[f"{fold.inner[0]}.weight"], fold.inner[1])
    if fold.identity is not None:
        groups = cast(nn.Conv2d, network.get_submodule(fold.convolution)).groups
        own = own - scaled(nn.init.dirac_(torch.empty_like(fused[..., :1, :1]), groups), fold.identity)
    scale = _scale(network, fold.norm, state).view(-1, *(1 for _ in own.shape[1:]))
    return torch.where(scale == 0, 0.0, own / scale).to(fused.dtype)


def _scale(network: nn.Module, norm: str, state: Mapping[str, Tensor]) -> Tensor:
    """What a normalisation multiplies each channel with in evaluation mode."""
    eps = cast(nn.BatchNorm2d, network.get_submodule(norm)).eps
    return state[f"{norm}.weight"].double() * (state[f"{norm}.running_var"].double() + eps).rsqrt()


def _fused(module: nn.Module) -> nn.Module:
    if isinstance(module, BranchedBlock):
        return nn.Sequential(module.fuse(), nn.ReLU(inplace=True) if module.relu else nn.Identity()).eval()
    for name, child in module.named_children():
        setattr(module, name, _fused(child))
    if isinstance(module, Network):
        module.compose()
    return _fuse_pairs(module) if isinstance(module, nn.Sequential) else module


def _fuse_pairs(layers: nn.Sequential) -> nn.Sequential:
    """The same layers, each convolution with the normalisation that follows it made one."""
    kept: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, _NORMS) and kept and isinstance(kept[-1], _CONVOLUTIONS):
            kept[-1] = _folded(nn.Sequential(kept[-1], layer)).to(kept[-1].weight.dtype)
        else:
            kept.append(layer)
    return nn.Sequential(*kept).eval()


def _normalised(inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution without bias and normalisation; the output has 1/stride of the input's size."""
    padding = (kernel - stride) // 2 if kernel % 2 == 0 else kernel // 2
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


def _folded(pair: nn.Sequential) -> nn.Conv2d | nn.Conv3d:
    """A convolution and its normalisation as one convolution, in double precision for what is summed afterwards."""
    convolution, norm = copy.deepcopy(pair).double().eval()
    assert isinstance(convolution, _CONVOLUTIONS)
    return fuse_conv_bn_eval(convolution, cast(nn.BatchNorm2d, norm))
