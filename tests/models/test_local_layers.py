"""Which weights are local: programs with few of them against the full program."""

import pyro.distributions as dist
import pytest
import torch

from hierarchical_lvae.inference import LocalELBO, OneStepMAP
from hierarchical_lvae.models import LocalVAE

SHAPE, K, B = (3, 8, 8), 2, 4
NONE = 1e-30


class Frozen(LocalVAE):
    """All weights local, with a prior variance of next to nothing for those that another program shares."""

    def like(self, other):
        """Take the weights of `other`, and its choice of local layers."""
        self.scale = {}
        with torch.no_grad():
            for name, meta, shared in (("decoder", "theta", "theta_shared"), ("encoder", "phi", "phi_shared")):
                mine, its = getattr(self, name), getattr(other, name)
                local = its.layout.split(getattr(other, meta))
                rest = {} if getattr(other, shared) is None else its.shared.split(getattr(other, shared))
                is_local = {n: n in local and other.adapts[name] for n in mine.layout.shapes}
                getattr(self, meta).copy_(torch.cat([(local | rest)[n].flatten() for n in mine.layout.shapes]))
                self.scale[name] = torch.cat(
                    [
                        torch.full(s, float(self.tau if is_local[n] else NONE)).flatten()
                        for n, s in mine.layout.shapes.items()
                    ]
                )
        return self

    def _local(self, network, meta):
        return dist.Normal(meta, self.scale[network].to(meta)).to_event(1)


@pytest.mark.parametrize("local_layers", ["head", "decoder", "encoder", "0.*", "head, encoder.0.bias"])
@pytest.mark.parametrize("local", [OneStepMAP(), OneStepMAP(first_order=True)])
def test_shared_weights_are_local_ones_that_cannot_move(local_layers, local):
    """To 1e-9 in double precision: the loss, and the gradients of all weights."""
    some = LocalVAE(3.0, K, SHAPE, 3, activation="softplus", local_layers=local_layers).double()
    whole = Frozen(3.0, K, SHAPE, 3, activation="softplus").double().like(some)
    query, support = torch.rand(B, *SHAPE).double(), torch.rand(B, K, *SHAPE).double()
    losses = []
    for vae in (some, whole):
        torch.manual_seed(1)
        loss = LocalELBO(local).differentiable_loss(vae.model, vae.guide, query, support)
        loss.backward()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    for name, meta, shared in (("decoder", "theta", "theta_shared"), ("encoder", "phi", "phi_shared")):
        gradient = getattr(whole, name).layout.split(getattr(whole, meta).grad)
        for layout, parameter in ((getattr(some, name).layout, meta), (getattr(some, name).shared, shared)):
            if (values := getattr(some, parameter)) is not None:
                for key, value in layout.split(values.grad).items():
                    torch.testing.assert_close(value, gradient[key], rtol=1e-9, atol=1e-9)


def test_the_choice_of_local_layers_changes_no_weight():
    """The meta-weights of a seed are the same numbers, cut in another way."""

    def weights(local_layers):
        torch.manual_seed(3)
        vae = LocalVAE(1.0, K, SHAPE, 3, local_layers=local_layers)
        shared = {} if vae.theta_shared is None else vae.decoder.shared.split(vae.theta_shared)
        return vae.decoder.layout.split(vae.theta) | shared

    whole, head = weights("all"), weights("head")
    assert whole.keys() == head.keys()
    assert all(torch.equal(whole[name], head[name]) for name in whole)


def test_only_local_layers_move():
    vae = LocalVAE(1.0, K, SHAPE, 3, local_layers="head")
    assert vae.theta.shape == (64 * 3 * 16 + 3,)
    posterior = LocalELBO(OneStepMAP()).local_posterior(vae.model, vae.guide, torch.rand(B, K, *SHAPE))
    assert {name: tuple(q.mean.shape) for name, q in posterior.items()} == {"theta_N": (B, 1, vae.theta.numel())}


def test_the_plain_vae_has_no_local_layers():
    vae = LocalVAE(0.0, K, SHAPE, 3, local_layers="head")
    assert vae.theta_shared is None
    assert vae.theta.numel() == LocalVAE(0.0, K, SHAPE, 3).theta.numel()


def test_a_part_that_matches_nothing_is_named():
    with pytest.raises(ValueError, match="no weights match 'tail': give all, decoder, encoder, head, or a pattern of"):
        LocalVAE(1.0, K, SHAPE, 3, local_layers="head,tail")
