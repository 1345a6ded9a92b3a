"""Programs that cannot be adapted, and what is no object, are refused, with the name and the remedy."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from hierarchical_lvae.inference import Dense, Laplace, LocalELBO, OneStepMAP, Shared, elbo
from hierarchical_lvae.models import LocalVAE
from hierarchical_lvae.penalties import TotalCorrelation

LOCAL, STRUCTURE = "a local inference object, such as OneStepMAP()", "a structure of the curvature, such as Diagonal()"


class TestProgramsThatCannotBeAdapted:
    def loss(self, model, guide, sites=("w",)):
        return LocalELBO(OneStepMAP(), sites=sites).differentiable_loss(
            model, guide, torch.zeros(2, 3), torch.zeros(2, 3)
        )

    @staticmethod
    def nothing(x):
        pass

    def test_no_local_site(self):
        def model(x):
            with pyro.plate("n", 2, dim=-2), pyro.plate("k", 3, dim=-1):
                pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

        with pytest.raises(ValueError, match=r"no local site.*'?w"):
            self.loss(model, self.nothing)

    def test_a_local_site_that_is_not_normal(self):
        def model(x):
            with pyro.plate("n", 2, dim=-2):
                w = pyro.sample("w", dist.Laplace(0.0, 1.0))
                with pyro.plate("k", 3, dim=-1):
                    pyro.sample("x", dist.Normal(w, 1.0), obs=x)

        with pytest.raises(ValueError, match="'w' is Laplace: it must be Normal"):
            self.loss(model, self.nothing)

    def test_plates_the_wrong_way_round(self):
        def model(x):
            with pyro.plate("n", 2, dim=-1):
                w = pyro.sample("w", dist.Normal(0.0, 1.0))
                with pyro.plate("k", 3, dim=-2):
                    pyro.sample("x", dist.Normal(w, 1.0), obs=x)

        with pytest.raises(ValueError, match="'w' lies in the plate 'n' at dim -1, the dimension of points"):
            self.loss(model, self.nothing)

    def test_a_subsampled_plate_of_neighbourhoods(self):
        def model(x):
            with pyro.plate("n", 20, subsample_size=2, dim=-2):
                w = pyro.sample("w", dist.Normal(0.0, 1.0))
                with pyro.plate("k", 3, dim=-1):
                    pyro.sample("x", dist.Normal(w, 1.0), obs=x)

        with pytest.raises(ValueError, match="'w' is scaled by 10"):
            self.loss(model, self.nothing)

    @pytest.mark.parametrize(("queries", "supports"), [(4, 1), (4, 2), (1, 4)])
    def test_as_many_queries_as_supports(self, queries, supports):
        vae = LocalVAE(1.0, num_neighbours=2, image_shape=(1, 8, 8), latent_dim=3)
        query, support = torch.rand(queries, 1, 8, 8), torch.rand(supports, 2, 1, 8, 8)
        with pytest.raises(ValueError, match="there must be as many queries as support sets"):
            LocalELBO(OneStepMAP()).loss(vae.model, vae.guide, query, support)

    def test_a_site_outside_the_plates(self):
        def model(x):
            with pyro.plate("n", 2, dim=-2):
                w = pyro.sample("w", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(w, 1.0).to_event(2), obs=torch.zeros(2, 1))

        with pytest.raises(ValueError, match="'x' lies outside the plates"):
            self.loss(model, self.nothing)

    def test_a_code_that_is_not_reparameterised(self):
        def model(x):
            with pyro.plate("n", 2, dim=-2):
                w = pyro.sample("w", dist.Normal(0.0, 1.0))
                with pyro.plate("k", 3, dim=-1):
                    z = pyro.sample("z", dist.Bernoulli(0.5))
                    pyro.sample("x", dist.Normal(w + z, 1.0), obs=x)

        def guide(x):
            with pyro.plate("n", 2, dim=-2), pyro.plate("k", 3, dim=-1):
                pyro.sample("z", dist.Bernoulli(0.3))

        with pytest.raises(ValueError, match="'z' is not reparameterised"):
            self.loss(model, guide)

    def test_sites_without_counterpart(self):
        def model(x):
            with pyro.plate("n", 2, dim=-2):
                w = pyro.sample("w", dist.Normal(0.0, 1.0))
                with pyro.plate("k", 3, dim=-1):
                    z = pyro.sample("z", dist.Normal(0.0, 1.0))
                    pyro.sample("x", dist.Normal(w + z, 1.0), obs=x)

        def guide(x):
            with pyro.plate("n", 2, dim=-2), pyro.plate("k", 3, dim=-1):
                pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("y", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})

        with pytest.raises(ValueError, match="'z' is not in the guide"):
            self.loss(model, self.nothing)
        with pytest.raises(ValueError, match="guide's site 'y' is not in the model"):
            self.loss(model, guide)


@pytest.mark.parametrize("make", [lambda: LocalVAE(1.0, 2, (1, 8, 8), 3), lambda: LocalVAE(0.0, 2, (1, 8, 8), 3)])
def test_a_support_set_of_another_size_than_the_programs_is_said_once(make, caplog):
    """τ stays, and ℓ_N grows with the points: 200 neighbours where 2 were meant make a step 100 times as long."""
    elbo._warn_of_other_size.cache_clear()
    vae = make()
    for number in (2, 200, 200, 1):
        LocalELBO(OneStepMAP()).loss(vae.model, vae.guide, torch.rand(1, 1, 8, 8), torch.rand(1, number, 1, 8, 8))
    said = [message.split(": ")[1] for message in caplog.messages]
    lengths = ["its local step is 100 times as long", "its local step is 0.5 times as long"]
    assert said == (lengths if vae.is_local else [])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LocalELBO("one-step"), f"local is 'one-step': give {LOCAL}"),
        (lambda: LocalELBO(OneStepMAP), f"local is the class OneStepMAP: give {LOCAL}"),
        (lambda: LocalELBO(None), f"local is None: give {LOCAL}"),
        (lambda: LocalELBO(Dense()), f"local is Dense(): give {LOCAL}"),
        (lambda: Laplace("one-step"), f"centre is 'one-step': give {LOCAL}"),
        (lambda: Laplace(OneStepMAP), f"centre is the class OneStepMAP: give {LOCAL}"),
        (lambda: Laplace(Dense()), f"centre is Dense(): give {LOCAL}"),
        (lambda: Laplace(OneStepMAP(), Dense), f"structure is the class Dense: give {STRUCTURE}"),
        (lambda: Laplace(structure="dense"), f"structure is 'dense': give {STRUCTURE}"),
        (lambda: Laplace(structure=Shared()), f"structure is Shared(): give {STRUCTURE}"),
        (
            lambda: LocalELBO(OneStepMAP(), penalty="tc"),
            "penalty is 'tc': give a penalty object, such as build_penalty('tc', latent_dim)",
        ),
        (
            lambda: LocalELBO(OneStepMAP(), penalty=TotalCorrelation),
            "penalty is the class TotalCorrelation: give a penalty object, such as build_penalty('tc', latent_dim)",
        ),
        (
            lambda: LocalELBO(OneStepMAP(), sites="theta_N"),
            "sites is 'theta_N': give a collection of names, such as ('theta_N',)",
        ),
    ],
)
def test_names_and_classes_are_refused_where_an_object_is_needed(build, message):
    with pytest.raises(TypeError) as error:
        build()
    assert str(error.value) == message


def test_own_objects_and_functions_are_accepted():
    def nothing(local_loss):
        return {}

    for local in (nothing, torch.nn.Identity(), Laplace(nothing), Laplace(Laplace())):
        assert LocalELBO(local, penalty=lambda codes: 0).local is local
