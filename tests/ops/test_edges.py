"""The loss of edges and their thinning: closed forms and gradients."""

import math

import torch
from torch.autograd import gradcheck

from tiepoint.ops.edges import edge_cross_entropy, thin_edges


def test_the_loss_of_a_coin_is_known() -> None:
    """At even odds every pixel that counts costs its weight times log 2, and edges weigh as much as the rest."""
    consensus = torch.zeros(1, 1, 10, 10)
    consensus[..., :2, :] = 1.0
    loss = edge_cross_entropy(torch.zeros(1, 1, 10, 10), consensus, balance=1.0)
    edges, others = loss[..., :2, :].sum(), loss[..., 2:, :].sum()
    assert torch.isclose(edges, others)
    assert torch.isclose(edges, torch.tensor(20 * 0.8 * math.log(2)))


def test_where_few_agree_nothing_is_said() -> None:
    consensus = torch.tensor([0.0, 0.2, 0.3, 0.4, 1.0]).view(1, 1, 1, 5)
    loss = edge_cross_entropy(torch.zeros(1, 1, 1, 5), consensus, agreed=0.3)
    assert (loss.flatten() > 0).tolist() == [True, False, False, True, True]


def test_an_image_without_edges_costs_nothing_and_is_finite() -> None:
    loss = edge_cross_entropy(torch.randn(2, 1, 4, 4), torch.zeros(2, 1, 4, 4))
    assert torch.equal(loss, torch.zeros(2, 1, 4, 4))


def test_each_image_is_balanced_by_itself() -> None:
    consensus = torch.zeros(2, 1, 8, 8)
    consensus[0, 0, 0] = consensus[1, 0, :4] = 1.0
    logits = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    both = edge_cross_entropy(logits, consensus)
    apart = [edge_cross_entropy(logits[i : i + 1], consensus[i : i + 1]) for i in (0, 1)]
    assert torch.allclose(both, torch.cat(apart))


def test_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 1, 5, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    consensus = torch.rand(1, 1, 5, 6, generator=generator).round()
    # the loss is computed in single precision, whatever comes
    assert gradcheck(lambda x: edge_cross_entropy(x, consensus).double(), logits, eps=1e-3, atol=1e-3)


def test_thinning_keeps_the_crest_alone() -> None:
    x = torch.arange(64.0)
    ridge = torch.exp(-((x - 31.0) ** 2) / 18).expand(48, 64)[None, None]
    for image, axis in ((ridge, 3), (ridge.transpose(2, 3), 2)):
        thinned = thin_edges(image)
        kept = (thinned > 0.05).nonzero()[:, axis]
        assert kept.unique().tolist() == [31]


def test_thinning_turns_with_the_image() -> None:
    """On the diagonal as on the axes: a slanting ridge keeps about one pixel a row."""
    y, x = torch.meshgrid(torch.arange(80.0), torch.arange(80.0), indexing="ij")
    ridge = torch.exp(-((x - y) ** 2) / 2 / 8)[None, None]
    thinned = thin_edges(ridge)[0, 0, 10:70, 10:70]
    assert torch.equal((thinned > 0.3).nonzero()[:, 0], torch.arange(60))


def test_what_is_kept_keeps_its_value() -> None:
    image = torch.rand(2, 1, 40, 50, generator=torch.Generator().manual_seed(1))
    thinned = thin_edges(image)
    assert ((thinned == 0) | (thinned == image)).all()
    assert 0.05 < (thinned > 0).float().mean() < 0.6
