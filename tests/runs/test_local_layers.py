"""Options of local layers, and fits that they cannot have."""

import pytest

from hierarchical_lvae.presentation.figures import draw_figure3
from hierarchical_lvae.runs import FitOptions, prepare

SMALL = {"dataset": "digits", "batch": 2, "num_neighbours": 2, "latent_dim": 3}


def of(**options):
    return FitOptions.of("quick", **SMALL, **options)


def test_the_exact_mode_needs_a_head():
    assert of(local="exact", local_layers="head").local_layers == "head"
    for layers in ("all", "decoder", "encoder"):
        with pytest.raises(ValueError, match="linear in the local weights: give `local_layers` head"):
            of(local="exact", local_layers=layers)
    with pytest.raises(ValueError, match="exact needs local weights, but with alpha 0 there are none"):
        of(local="exact", local_layers="head", alpha=0.0)


@pytest.mark.parametrize(("options", "what"), [({"alpha": "auto"}, "alpha auto"), ({"local": "laplace"}, "laplace")])
def test_what_needs_a_local_decoder_is_refused_before_the_first_step(options, what):
    with pytest.raises(ValueError, match=f"{what} needs local weights in the decoder: `local_layers` is encoder"):
        prepare(of(local_layers="encoder", **options))
    prepare(of(local_layers="head", **options))


def test_figures_claim_local_weights_only_where_the_decoder_has_them():
    def title(layers):
        figure = draw_figure3(prepare(of(local_layers=layers)))
        return " ".join(part.get_suptitle() for part in figure.subfigs)

    assert "local weights" in title("head")
    assert "local weights" not in title("encoder")
