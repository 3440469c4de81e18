import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tiepoint.models.blocks import BranchedBlock, Residual, block, deployed, enlarge, remainder, unfused


def lived_in(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network as after a training: normalisations with statistics, scales and shifts of their own."""
    random = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(generator=random)
            module.running_var.uniform_(0.01, 4.0, generator=random)
            nn.init.normal_(module.weight, generator=random)
            nn.init.normal_(module.bias, generator=random)
    return network.eval()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def difference(network: nn.Module, other: nn.Module, x: Tensor) -> float:
    """The largest difference relative to the largest value."""
    expected = network(x)
    return float((other(x) - expected).abs().max() / expected.abs().max())


def kinds(network: nn.Module) -> list[type[nn.Module]]:
    return [type(module) for module in network.modules() if not list(module.children())]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    channels=st.sampled_from([(1, 4), (4, 4), (8, 4), (6, 12), (12, 12)]),
    shape=st.sampled_from([(3, 1), (4, 2), (5, 1)]),
    grouped=st.booleans(),
)
def test_the_branches_are_one_convolution(
    seed: int, channels: tuple[int, int], shape: tuple[int, int], grouped: bool
) -> None:
    inputs, outputs = channels
    kernel, stride = shape
    groups = 2 if grouped and inputs > 1 else 1
    torch.manual_seed(seed)
    branched = BranchedBlock(inputs, outputs, kernel=kernel, stride=stride, groups=groups, relu=False)
    lived_in(branched, seed)
    fused = branched.fuse()
    assert isinstance(fused, nn.Conv2d)
    assert fused.weight.shape == (outputs, inputs // groups, kernel, kernel)
    assert fused.bias is not None
    assert difference(branched, fused, noise(2, inputs, 12, 16)) < 1e-5


def test_the_input_itself_is_a_branch_where_the_shape_stays() -> None:
    assert BranchedBlock(4, 4).identity is not None
    assert BranchedBlock(4, 8).identity is None
    assert BranchedBlock(4, 4, kernel=4, stride=2).identity is None


def test_every_branch_counts() -> None:
    """Without one of its branches, a block is another function and fuses to another kernel."""
    branched = lived_in(BranchedBlock(4, 4))
    whole = branched.fuse().weight
    for branch in ("full.1", "inner.1", "identity"):
        lacking = copy.deepcopy(branched)
        nn.init.zeros_(lacking.get_submodule(branch).weight)
        assert (lacking.fuse().weight - whole).abs().max() > 1e-3
        assert difference(branched, lacking, noise(1, 4, 8, 8)) > 1e-3


def test_fusing_changes_nothing_in_the_block_and_keeps_its_type() -> None:
    branched = lived_in(BranchedBlock(4, 4))
    before = copy.deepcopy(branched.state_dict())
    assert branched.fuse().weight.dtype == torch.float32
    after = branched.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert branched.double().fuse().weight.dtype == torch.float64


def test_one_by_one_and_two_by_two_are_never_branched() -> None:
    assert not isinstance(block(4, 4, kernel=1, branches=True), BranchedBlock)
    assert not isinstance(block(4, 4, kernel=2, stride=2, branches=True), BranchedBlock)
    assert isinstance(block(4, 4, branches=True), BranchedBlock)


@pytest.mark.parametrize("branches", [False, True])
def test_a_relu_ends_the_block_unless_it_is_unwanted(branches: bool) -> None:
    x = noise(1, 4, 8, 8)
    torch.manual_seed(0)
    assert block(4, 8, branches=branches)(x).min() == 0
    assert block(4, 8, relu=False, branches=branches)(x).min() < -0.1


# where pixels lie


def ramp(size: int) -> Tensor:
    """(1, 1, size, size): 1 + x + 3·y at pixel (x, y)."""
    x = torch.arange(size, dtype=torch.float32)
    return (1 + x + 3 * x.unsqueeze(1)).reshape(1, 1, size, size)


@pytest.mark.parametrize("branches", [False, True])
@pytest.mark.parametrize("kernel", [2, 4, 6])
def test_an_even_kernel_at_stride_2_is_centred_on_the_four_pixels_of_its_output(kernel: int, branches: bool) -> None:
    layer = block(1, 1, kernel=kernel, stride=2, branches=branches).eval()
    parts = [module for module in layer.modules() if isinstance(module, nn.Conv2d)]
    for convolution in parts:  # means, so that a ramp gives its value at the centre
        nn.init.constant_(convolution.weight, 1 / (len(parts) * convolution.weight[0, 0].numel()))
    found = layer(ramp(16))
    assert found.shape == (1, 1, 8, 8)
    inner = slice(2, -2)
    expected = F.avg_pool2d(ramp(16), 2)
    assert torch.allclose(found[..., inner, inner], expected[..., inner, inner], rtol=1e-4)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_enlarging_undoes_average_pooling_of_a_ramp(factor: int) -> None:
    enlarged = enlarge(F.avg_pool2d(ramp(64), factor), factor)
    inner = slice(factor, -factor)
    assert enlarged.shape == (1, 1, 64, 64)
    assert torch.allclose(enlarged[..., inner, inner], ramp(64)[..., inner, inner], rtol=1e-4)


# residuals and whole networks


def test_a_residual_whose_body_is_silent_hands_on_its_input() -> None:
    residual = lived_in(Residual(4, 4))
    last = residual.body[1][1]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    x = noise(1, 4, 8, 8)
    assert torch.allclose(residual(x), F.relu(x))


def test_a_residual_changes_the_number_of_channels() -> None:
    assert Residual(4, 6, branches=True)(noise(2, 4, 8, 8)).shape == (2, 6, 8, 8)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = nn.Sequential(
        block(3, 8, kernel=4, stride=2, branches=True),
        nn.ModuleDict({"inside": Residual(8, 8, branches=True)})["inside"],
        Residual(8, 12),
        nn.Sequential(nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 12, 1), nn.BatchNorm2d(12), block(12, 4, groups=2)),
    )
    return lived_in(layers, seed)


@pytest.mark.parametrize("seed", range(4))
def test_a_deployed_network_is_the_same_function(seed: int) -> None:
    trained = network(seed)
    assert difference(trained, deployed(trained), noise(2, 3, 32, 48)) < 1e-5


def test_volumes_are_fused_too_and_come_back() -> None:
    layers = nn.Sequential(nn.Conv3d(2, 6, 3, padding=1, bias=False), nn.BatchNorm3d(6), nn.ReLU(), nn.Conv3d(6, 1, 1))
    trained = lived_in(layers)
    used = deployed(trained)
    assert nn.BatchNorm3d not in kinds(used)
    assert difference(trained, used, noise(1, 2, 4, 10, 12)) < 1e-5
    held = used.state_dict()
    rest = remainder(trained, held)
    assert "0.weight" not in rest
    back = unfused(trained, held, rest)
    assert all(torch.allclose(back[name], value, atol=1e-6) for name, value in trained.state_dict().items())


def test_nothing_is_left_to_fuse_and_what_cannot_be_fused_stays() -> None:
    found = kinds(deployed(network()))
    assert not any(isinstance(module, BranchedBlock) for module in deployed(network()).modules())
    assert found.count(nn.BatchNorm2d) == 1  # the one that follows no convolution
    assert found.count(nn.Conv2d) == 1 + 2 + 3 + 2
    assert found.count(nn.ReLU) == kinds(network()).count(nn.ReLU) + 2  # those of the two branched blocks that have one


def test_the_original_stays_as_it_was() -> None:
    trained = network().train()
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    copied = deployed(trained)
    after = trained.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(module.training for module in trained.modules())
    assert not any(module.training for module in copied.modules())
    own = {id(parameter) for parameter in trained.parameters()}
    assert not any(id(parameter) in own for parameter in copied.parameters())


def test_a_deployed_network_can_be_deployed_again() -> None:
    once = deployed(network())
    x = noise(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(once(x), deployed(once)(x))


@pytest.mark.parametrize("make", [lambda: BranchedBlock(4, 4), lambda: nn.Sequential(BranchedBlock(4, 6))])
def test_a_branched_block_alone_is_deployed_too(make: object) -> None:
    trained = lived_in(make())  # type: ignore[operator]
    copied = deployed(trained)
    assert kinds(copied).count(nn.Conv2d) == 1
    assert difference(trained, copied, noise(1, 4, 8, 8)) < 1e-5
