"""A Local VAE and everything needed to use it, built from options or loaded from a run directory."""

import logging
import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyro
import torch
from torch import Tensor

from hierarchical_lvae.data import DATASETS, FactorImages, carsnorb_stand_in, default_data_dir, load_dataset, shapes3d
from hierarchical_lvae.data.directory import data_directory
from hierarchical_lvae.data.factor_images import shrunk
from hierarchical_lvae.data.sources import SOURCES
from hierarchical_lvae.files import named
from hierarchical_lvae.inference import LOCAL_INFERENCE, LocalELBO
from hierarchical_lvae.models import LocalVAE
from hierarchical_lvae.neighbourhoods import Neighbourhood, Surroundings, build_neighbourhood
from hierarchical_lvae.penalties import build_penalty
from hierarchical_lvae.runs.devices import device_here, resolve_device
from hierarchical_lvae.runs.directory import MODEL, read_checkpoint, read_options, read_record, read_state, read_weights
from hierarchical_lvae.runs.inputs import check_codes, check_images, check_neighbours, check_number
from hierarchical_lvae.runs.names import check_names, names_in
from hierarchical_lvae.runs.options import AUTO, FitOptions
from hierarchical_lvae.runs.pretrained import check_writable, located
from hierarchical_lvae.types import LocalInference, Stateful, accepted, lookup, random_state_kept, single_precision

if TYPE_CHECKING:
    from pyro.distributions import TorchDistribution


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A trained Local VAE and everything needed to use it.

    Images x are (B, C, H, W) and their neighbours x_N (B, K, C, H, W), as drawn by `run.neighbourhood(index, x)`;
    pixels are in [0, 1]. All are float32 tensors on the device of the run; NumPy arrays are refused. To encode, decode
    and sample, the local parameters are the centre of the local posterior.
    """

    options: FitOptions
    vae: LocalVAE
    elbo: LocalELBO
    dataset: FactorImages
    neighbourhood: Neighbourhood
    path: Path | None = None
    """The run directory, if the run was fitted or loaded. Scores and figures are saved there."""

    @property
    def directory(self) -> Path:
        """The run directory, for writing.

        Raises:
            ValueError: the run has none (it was neither fitted nor loaded), or is a pretrained run of the package.
        """
        if self.path is None:
            raise ValueError("the run has no directory: fit it, load it, or give it one with dataclasses.replace")
        check_writable(self.path)
        return self.path

    @property
    def stateful(self) -> dict[str, Stateful]:
        """The parts besides the model that have a state, by the prefix of their tensors in a checkpoint."""
        penalty = {"penalty.": self.elbo.penalty} if self.elbo.penalty is not None else {}
        return {"neighbourhood.": self.neighbourhood, **penalty}

    def adapt(self, x: Tensor, x_N: Tensor) -> "dict[str, TorchDistribution]":
        """The local posterior at x, by adapted site: batch (B, 1), event (P,).

        Raises:
            TypeError: an argument is not a tensor of the dtype of the weights.
            ValueError: an argument has a wrong shape, is on another device or has pixels outside [0, 1], or the numbers
                of images and neighbourhoods differ.
        """
        check_images(x, self.vae)
        return self._posterior(x_N, len(x))

    @torch.no_grad()
    @single_precision()
    def encode(self, x: Tensor, x_N: Tensor | None) -> Tensor:
        """Codes (B, D) of x: the posterior means of the local encoder, or of the meta encoder if x_N is None.

        Raises:
            TypeError, ValueError: as for `adapt`.
        """
        check_images(x, self.vae)
        if x_N is None:
            return meta_codes(self.vae, x)
        phi_N = self._centre("phi_N", self.vae.phi, len(x), x_N)
        return self.vae.encode(x.unsqueeze(1), phi_N).mean.squeeze(1)

    @torch.no_grad()
    @single_precision()
    def decode(self, z: Tensor, x_N: Tensor | None) -> Tensor:
        """Decode codes z (B, S, D) to mean images (B, S, C, H, W), clamped to [0, 1]; x_N None: by the meta decoder.

        Raises:
            TypeError, ValueError: as for `adapt`, for codes instead of images.
        """
        check_codes(z, self.vae)
        theta_N = self._centre("theta_N", self.vae.theta, len(z), x_N)
        return self.vae.decode(z, theta_N).mean.clamp(0, 1)

    @single_precision()
    def sample(self, x: Tensor, x_N: Tensor | None, num_samples: int) -> Tensor:
        """Draw codes from p(z) and decode them with the weights local to x: images (B, num_samples, C, H, W).

        Raises:
            TypeError, ValueError: as for `adapt`, or `num_samples` is not an integer of at least 1.
        """
        check_images(x, self.vae)
        z = torch.randn(len(x), check_number("num_samples", num_samples), self.options.latent_dim).to(x.device)
        return self.decode(z, x_N)

    def _posterior(self, x_N: Tensor, number: int) -> "dict[str, TorchDistribution]":
        check_neighbours(x_N, number, self.vae)
        with torch.no_grad(), single_precision(), pyro.get_param_store().scope():
            return self.elbo.local_posterior(self.vae.model, self.vae.guide, x_N)

    def _centre(self, site: str, meta: Tensor, number: int, x_N: Tensor | None) -> Tensor:
        posterior = {} if x_N is None else self._posterior(x_N, number)
        return posterior[site].mean if site in posterior else meta.expand(number, 1, -1)


@single_precision()
def prepare(options: FitOptions, dataset: FactorImages | None = None) -> Run:
    """Build an untrained run, with parameters initialised from the seed; load the data set if none is given.

    Raises:
        ValueError: a name in the options is unknown, or alpha "auto" and Laplace posteriors need local weights in the
            decoder, and `local_layers` has none.
    """
    check_names(options)
    size, options = options.image_size, replace(options, device=resolve_device(options.device))
    if dataset is None:
        loaded = load_dataset(options.dataset, options.data_dir, size, options.frame, options.skip_bad)
        dataset = loaded.to(options.device)
    dataset = dataset.resized(shrunk(size, dataset.images.shape[2:]))
    if ":" in options.device:
        torch.cuda.set_device(options.device)  # streams, graphs and libraries use the current device
    torch.manual_seed(options.seed)
    pixels = math.prod(dataset.image_shape) if options.alpha_unit == "sum" else 1
    vae = LocalVAE(
        alpha=1.0 if options.alpha == AUTO else float(options.alpha) * pixels,
        num_neighbours=options.num_neighbours,
        image_shape=dataset.image_shape,
        latent_dim=options.latent_dim,
        likelihood=options.likelihood,
        activation=options.activation,
        local_layers=options.local_layers,
    ).to(options.device)
    needy = options.alpha == AUTO or options.local.startswith("laplace")
    if needy and vae.is_local and not vae.adapts["decoder"]:
        raise ValueError(
            f"{'alpha auto' if options.alpha == AUTO else options.local} needs local weights in the decoder: "
            f"`local_layers` is {options.local_layers}, so give all, decoder or head"
        )
    penalty = build_penalty(options.penalty, options.latent_dim, options.device) if options.penalty else None
    elbo = LocalELBO(_local_inference(options), beta=options.beta, penalty=penalty)
    surroundings = Surroundings(
        num_neighbours=options.num_neighbours,
        data=dataset,
        around=vae.likelihood.around,
        encode=partial(meta_codes, vae),
        index=options.index,
        refresh=options.refresh,
        cache=Path(options.data_dir or default_data_dir()),
    )
    return Run(options, vae, elbo, dataset, build_neighbourhood(options.neighbourhood, surroundings))


@torch.no_grad()
def meta_codes(vae: LocalVAE, x: Tensor) -> Tensor:
    """Encode images x (B, C, H, W) with the meta-parameters, as one neighbourhood of B points: codes (B, D)."""
    return vae.encode(x.unsqueeze(0), vae.phi.view(1, 1, -1)).mean.squeeze(0)


@single_precision()
def load_run(
    path: str | Path,
    device: str | None = None,
    data_dir: str | Path | None = None,
    dataset: str | Path | None = None,
) -> Run:
    """Load a run and its data set from a run directory.

    If the fit is not finished, a warning is logged, and the weights are those of the last checkpoint.

    Args:
        path: the run directory, or "pretrained:NAME" (see `hierarchical_lvae.runs.PRETRAINED`), which is read in place.
        device: where to compute; by default, the device of the fit if available, and the CPU for a pretrained run.
        data_dir: where the data files are now, if they have moved since the fit.
        dataset: where the user's own data are now, if they have moved; the fingerprint of their content must agree.

    Raises:
        FileNotFoundError: the directory is not a run directory, has no weights yet, or its data are missing.
        ValueError: a file is damaged, the run was trained on other data, or no pretrained run has that name.
        OSError: the device is not available.
    """
    path = located(path)
    options = moved(read_options(path), device, data_dir, dataset)
    weights = read_weights(path)
    if (state := read_state(path)).status == "unknown":
        log.warning("%s may not be fully trained: it has neither state.json nor a checkpoint", path)
    elif state.status != "finished":
        log.warning("%s is not finished (%s): using the weights of its last checkpoint", path, state)
    with random_state_kept():
        run = replace(prepare(options, load_data(options, path)), path=path)
    try:
        run.vae.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{path / MODEL} does not hold the weights of this model: restore it, or fit again") from error
    if (saved := read_checkpoint(path)) is not None:
        for prefix, part in run.stateful.items():
            part.load_state_dict(named(saved, prefix))
    run.neighbourhood.prepare()
    return run


def moved(
    options: FitOptions, device: str | None, data_dir: str | Path | None, dataset: str | Path | None
) -> FitOptions:
    """Update the options of a run for another device, or for data that have moved.

    Raises:
        ValueError: a name in the options, such as that of the neighbourhood, is not in its table, or there is no such
            device.
    """
    for kind, table, name in names_in(options):
        if name not in table:
            raise ValueError(
                f"the run was trained with the {kind} {name!r}, which is not part of the library: use the run in a "
                "Python script that adds this name first"
            )
    here = resolve_device(device) if device else device_here(options.device)
    changes: dict[str, Any] = {"data_dir": data_dir, "dataset": dataset}
    options = replace(options, device=here, **{name: place for name, place in changes.items() if place is not None})
    is_gone = options.data_dir is not None and data_dir is None and not Path(options.data_dir).exists()
    if is_gone and not SOURCES.get(options.dataset):
        return replace(options, data_dir=None)  # it held only caches
    return options


def load_data(options: FitOptions, path: Path) -> FactorImages:
    """Load the data of the run in `path` onto the device of the options.

    A run that was trained on the replica of 3D Shapes, or on the stand-in for CarsNORB, keeps using those images, even
    if the real ones are available now.

    Raises:
        FileNotFoundError: the data are missing.
        ValueError: they are not the data that the run was trained on.
    """
    own, fitted = options.dataset not in DATASETS, read_options(path).dataset
    if options.dataset != fitted and fitted in DATASETS:
        raise ValueError(f"{path} was trained on {fitted}, not on {options.dataset}: leave out `dataset`")
    if options.data_dir is not None and not Path(options.data_dir).exists() and SOURCES.get(options.dataset):
        raise FileNotFoundError(
            f"the data directory of {path} is no longer at {options.data_dir}: give its new path with `data_dir`"
        )
    if own and not Path(options.dataset).exists():
        raise FileNotFoundError(
            f"the data of {path} are no longer at {options.dataset}: give their new path with `dataset`"
        )
    saved = read_record(path)["data"]
    if options.dataset == "3dshapes" and saved.get("source") == shapes3d.REPLICA:
        directory = data_directory(options.data_dir)
        if (directory / shapes3d.FILE).exists():
            log.info("%s was trained on the replica: ignoring %s", path, directory / shapes3d.FILE)
        dataset = shapes3d.replica(directory)
    elif options.dataset == "carsnorb" and saved.get("source") == carsnorb_stand_in.SOURCE:
        dataset = carsnorb_stand_in.load_stand_in(data_directory(options.data_dir))
    else:
        dataset = load_dataset(options.dataset, options.data_dir, options.image_size, options.frame, options.skip_bad)
    if dataset.fingerprint != saved.get("fingerprint"):
        place = (
            "their path with `dataset`"
            if own or fitted not in DATASETS
            else "their directory with `data_dir` or $HLVAE_DATA"
        )
        raise ValueError(
            f"{path} was trained on {saved.get('source', 'other data')}, but {options.dataset} now holds other data "
            f"({dataset.source}): give {place}"
        )
    return dataset.to(options.device)


def _local_inference(options: FitOptions) -> LocalInference:
    local = lookup(LOCAL_INFERENCE, options.local, "local inference")
    return local(**accepted(local, first_order=True) if options.first_order else {})
