"""A matcher that looks at all keypoints of both views at once, with attention, and its graph of two images.

The shape is LightGlue's (Lindenberger et al., ICCV 2023): in each layer self-attention with relative positions, then
attention to the other view, with the same weights for both views. Two things differ. It starts as the matcher of the
descriptors that it is given, and learns what that one lacks: the layers begin as identities. And padding is kept out
of the attention by a channel of the keys, not by a mask over all pairs, so that no sweep over these is spent on it.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tiepoint.models.base import Extractor, Keypoints, Network
from tiepoint.models.twoview import FeatureMatches, TwoViewMatches
from tiepoint.ops.assignment import PADDED, Assignment, mutual_assignment

_SPARE = 2  # channels of a head that carry the mask: one would do, but sizes of heads are even
_BLOCK = 64  # rows and columns of the assignment that are searched at once
_TEMPERATURE = 20.0  # inverse, of the cosines at the start; where the extractor's own contrastive loss starts

Size = tuple[int, int] | tuple[Tensor, Tensor]  # height and width of all images of a batch, or of each one: (B, 1)


class _Attention(nn.Module):
    """Multi-head attention with a residual block after it.

    Args:
        dim: channels of the keypoints.
        heads: how many.
        width: channels of a head.
        shared: whether queries and keys are one and the same projection, so that attention is symmetric.
    """

    def __init__(self, dim: int, heads: int, width: int, *, shared: bool) -> None:
        super().__init__()
        self.heads = heads
        content = heads * (width - _SPARE)
        # queries and keys, values
        self.parts = [content] * (1 if shared else 2) + [heads * width]
        self.project = nn.Linear(dim, sum(self.parts))
        self.merge = nn.Linear(heads * width, dim)
        self.block = nn.Sequential(
            nn.Linear(2 * dim, 2 * dim), nn.LayerNorm(2 * dim), nn.GELU(), last := nn.Linear(2 * dim, dim)
        )
        # an identity at first
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        if shared:
            nn.init.orthogonal_(self.project.weight[:content])  # at first, attend to what looks alike

    def forward(self, x: Tensor, bias: Tensor, turn: tuple[Tensor, Tensor] | None, *, across: bool) -> Tensor:
        """One step.

        Args:
            x: (2B, K, D), the keypoints of all views 0, then of all views 1.
            bias: (2B, K), added to the logits of a key: `PADDED` where it is padding.
            turn: cosines and sines (2B, 1, K, C/2) of the positions, for relative positions.
            across: whether each view attends to the other one, instead of to itself.
        """
        half = self.project.weight.dtype  # or full: that of the weights; x itself is kept in full precision
        split = self.project(x.to(half)).split(self.parts, dim=2)
        parts: list[Tensor] = [part.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2) for part in split]
        query, key, value = parts[0], parts[-2], parts[-1]
        if turn is not None:
            query, key = _turned(query, turn), _turned(key, turn)
        marks = bias.to(key.dtype).unsqueeze(1).unsqueeze(3).expand(-1, self.heads, -1, -1)
        query = torch.cat((query, torch.ones_like(marks), torch.zeros_like(marks)), dim=3)
        key = torch.cat((key, marks, torch.zeros_like(marks)), dim=3)
        if across:
            key, value = (_stacked(*_views(each)[::-1]) for each in (key, value))
        message = F.scaled_dot_product_attention(query, key, value.to(query.dtype))
        merged = self.merge(message.transpose(1, 2).flatten(2).to(half))
        step: Tensor = self.block(torch.cat((x, merged.to(x.dtype)), dim=2).to(half))
        return x + step


def _stacked(views0: Tensor, views1: Tensor) -> Tensor:
    """One batch of both views: (2B, ...)."""
    return torch.stack((views0, views1)).flatten(0, 1)


def _views(x: Tensor) -> tuple[Tensor, Tensor]:
    """What belongs to views 0 and to views 1."""
    # not by chunk(2), which torch.export takes for a batch of a fixed size
    views0, views1 = x.reshape(2, -1, *x.shape[1:]).unbind()
    return views0, views1


def _turned(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary encoding: pairs of channels turned by an angle of the position (Su et al., "RoFormer", 2021, eq. 34)."""
    cosines, sines = turn
    a, b = x.chunk(2, dim=3)
    return torch.cat((a * cosines - b * sines, a * sines + b * cosines), dim=3)


class _Layer(nn.Module):
    """Self-attention, then attention to the other view."""

    def __init__(self, dim: int, heads: int, width: int) -> None:
        super().__init__()
        self.own = _Attention(dim, heads, width, shared=False)
        self.other = _Attention(dim, heads, width, shared=True)

    def forward(self, x: Tensor, bias: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        alone: Tensor = self.own(x, bias, turn, across=False)
        met: Tensor = self.other(alone, bias, None, across=True)
        return met


class _Output(nn.Module):
    """The assignment that the keypoints of a layer speak for (LightGlue, eq. 5–6)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(dim, dim)
        self.matchable = nn.Linear(dim, 1)
        nn.init.orthogonal_(self.project.weight, gain=math.sqrt(_TEMPERATURE / dim))
        nn.init.zeros_(self.project.bias)
        nn.init.zeros_(self.matchable.weight)
        nn.init.zeros_(self.matchable.bias)

    def forward(self, x: Tensor, bias: Tensor) -> Assignment:
        x = x.to(self.project.weight.dtype)
        projected = self.project(x).float()
        # padding goes by the channels that are added: no sweep over the matrix of all pairs
        marks, ones = bias.unsqueeze(2), torch.ones_like(bias).unsqueeze(2)
        left, _ = _views(torch.cat((projected, ones, marks), dim=2))
        _, right = _views(torch.cat((projected, marks, ones), dim=2))
        odds0, odds1 = _views(self.matchable(x).float().squeeze(2) + bias)
        return Assignment(left @ right.transpose(1, 2), odds0, odds1)


class AttentionMatcher(Network):
    """Keypoints and descriptors of two views in, their assignment out.

    Args:
        inputs: length of the descriptors.
        dim: channels of a keypoint inside, not fewer than `inputs`.
        layers: how many.
        heads: of the attention.
        width: channels of a head, even.
        min_score: matches less probable than this are dropped wherever the network is used. LightGlue drops below
            0.1, which leaves too little of hard pairs where the training was short.

    Raises:
        ValueError: the numbers do not fit together.
    """

    def __init__(
        self,
        inputs: int = 64,
        dim: int = 96,
        layers: int = 3,
        heads: int = 2,
        width: int = 32,
        min_score: float = 0.02,
    ) -> None:
        super().__init__()
        if dim < inputs:
            raise ValueError(f"dim is {dim}, expected at least {inputs}, the length of the descriptors")
        if width % 2 or width <= _SPARE:
            raise ValueError(f"width is {width}, expected an even number above {_SPARE}")
        if min(layers, heads) < 1:
            raise ValueError(f"layers are {layers} and heads {heads}, expected 1 or more")
        if not 0 <= min_score <= 1:
            raise ValueError(f"min_score is {min_score}, expected a probability")
        self.inputs, self.min_score = inputs, min_score
        self.embed = nn.Linear(inputs, dim)
        # descriptors keep their angles, with channels of about unit size
        nn.init.orthogonal_(self.embed.weight, gain=math.sqrt(dim))
        nn.init.zeros_(self.embed.bias)
        self.frequencies = nn.Parameter(_frequencies((width - _SPARE) // 2))
        self.layers = nn.ModuleList(_Layer(dim, heads, width) for _ in range(layers))
        self.outputs = nn.ModuleList(_Output(dim) for _ in range(layers))

    def forward(self, features0: Keypoints, features1: Keypoints, size0: Size, size1: Size) -> Assignment:
        """The assignment of the last layer.

        Args:
            features0: of view 0, B times K keypoints.
            features1: of view 1, as many.
            size0: (height, width) of views 0, pixels.
            size1: (height, width) of views 1, pixels.
        """
        states, bias = self._states(features0, features1, size0, size1)
        last: Assignment = self.outputs[-1](states[-1], bias)
        return last

    def assignments(self, features0: Keypoints, features1: Keypoints, size0: Size, size1: Size) -> list[Assignment]:
        """The assignments of all layers, what training supervises; arguments as for `forward`."""
        states, bias = self._states(features0, features1, size0, size1)
        # similarities need more digits than half precision has
        with torch.autocast(bias.device.type, enabled=False):
            return [output(state, bias) for output, state in zip(self.outputs, states, strict=True)]

    def _states(
        self, features0: Keypoints, features1: Keypoints, size0: Size, size1: Size
    ) -> tuple[list[Tensor], Tensor]:
        """The keypoints (2B, K, D) after each layer, and the bias (2B, K) that keeps padding out."""
        places = _stacked(centred(features0.keypoints, size0), centred(features1.keypoints, size1))
        angles = (places @ self.frequencies.float()).unsqueeze(1)
        turn = angles.cos(), angles.sin()
        bias = torch.where(_stacked(features0.mask, features1.mask), 0.0, PADDED)
        described = _stacked(features0.descriptors, features1.descriptors).to(self.embed.weight.dtype)
        x: Tensor = self.embed(described).float()
        states = []
        for layer in self.layers:
            x = layer(x, bias, turn)
            states.append(x)
        return states, bias


def centred(keypoints: Tensor, size: Size) -> Tensor:
    """Pixels (B, K, 2) of images of `size` (height, width) with their centre at 0 and half their long side 1."""
    height, width = size
    # a tensor of both would be a constant of the graph, where the sizes are not
    x, y = keypoints.unbind(-1)
    if isinstance(height, Tensor) and isinstance(width, Tensor):
        half: float | Tensor = torch.maximum(height, width) / 2
    else:
        half = max(height, width) / 2
    return torch.stack(((x - (width - 1) / 2) / half, (y - (height - 1) / 2) / half), dim=-1)


def _frequencies(count: int) -> Tensor:
    """(2, count): directions spread evenly, wavelengths from twice the long side down to 1/16 of it, to be learned."""
    steps = torch.arange(count)
    directions = steps * math.pi * (3 - math.sqrt(5))  # the golden angle
    radii = math.pi / 2 * 32 ** (steps / max(1, count - 1))
    return torch.stack((directions.cos(), directions.sin())) * radii


class AttentiveTwoViewMatcher(nn.Module):
    """Pre-processing, extraction of both images and matching by attention as one graph.

    Args:
        extractor: finds and describes the keypoints.
        matcher: assigns them to each other.
    """

    def __init__(self, extractor: Extractor, matcher: AttentionMatcher) -> None:
        super().__init__()
        self.extractor, self.matcher = extractor, matcher

    def forward(self, image0: Tensor, image1: Tensor, max_keypoints: Tensor) -> TwoViewMatches:
        """Match two batches of images; scores are probabilities.

        Args:
            image0: (B, H0, W0, 3) uint8, RGB.
            image1: (B, H1, W1, 3) uint8, RGB.
            max_keypoints: () int64, how many keypoints an image, K.
        """
        count = max_keypoints.item()
        torch._check(count >= 1)  # type: ignore[no-untyped-call]
        images = [image.permute(0, 3, 1, 2).float() / 255 for image in (image0, image1)]
        features0, features1 = (self.extractor(image, count) for image in images)
        size0, size1 = ((image.shape[2], image.shape[3]) for image in images)
        assignment = self.matcher(_to_blocks(features0), _to_blocks(features1), size0, size1)
        matches0, scores = mutual_assignment(assignment, min_score=self.matcher.min_score, block=_BLOCK)
        return TwoViewMatches(
            features0.keypoints,
            features1.keypoints,
            features0.scores,
            features1.scores,
            matches0[:, : features0.mask.shape[1]],
            scores[:, : features0.mask.shape[1]],
        )


class AttentiveFeatureMatcher(nn.Module):
    """Matching by attention of features that are at hand, as one graph.

    Args:
        matcher: assigns the keypoints to each other.
    """

    def __init__(self, matcher: AttentionMatcher) -> None:
        super().__init__()
        self.matcher = matcher

    def forward(
        self,
        keypoints0: Tensor,
        descriptors0: Tensor,
        mask0: Tensor,
        size0: Tensor,
        keypoints1: Tensor,
        descriptors1: Tensor,
        mask1: Tensor,
        size1: Tensor,
    ) -> FeatureMatches:
        """Match the features of two batches of images; arguments as for `FeatureMatcher.forward`."""
        # how sure the extractor is of a keypoint is nothing that the matcher looks at
        features0 = Keypoints(keypoints0, descriptors0, torch.zeros_like(keypoints0[..., 0]), mask0)
        features1 = Keypoints(keypoints1, descriptors1, torch.zeros_like(keypoints1[..., 0]), mask1)
        sizes = (tuple(each.unsqueeze(1) for each in size.unbind(1)) for size in (size0, size1))
        assignment = self.matcher(_to_blocks(features0), _to_blocks(features1), *sizes)
        matches0, scores = mutual_assignment(assignment, min_score=self.matcher.min_score, block=_BLOCK)
        return FeatureMatches(matches0[:, : mask0.shape[1]], scores[:, : mask0.shape[1]])


def _to_blocks(features: Keypoints) -> Keypoints:
    """The same with padding at the end, up to whole blocks."""
    count = features.mask.shape[1]
    missing = (count + _BLOCK - 1) // _BLOCK * _BLOCK - count
    keypoints, descriptors = (F.pad(each, (0, 0, 0, missing)) for each in (features.keypoints, features.descriptors))
    return Keypoints(keypoints, descriptors, *(F.pad(each, (0, missing)) for each in (features.scores, features.mask)))
