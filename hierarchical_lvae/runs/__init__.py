"""A run (its options, its directory and its Local VAE), and the pretrained runs shipped with the package."""

import lazy_loader

PRETRAINED = {
    "3dshapes-local": (
        "the paper's Figure 3: colours in the local weights, geometry in the code (α = 0.2; on a CPU)",
        "hlvae fit --dataset 3dshapes --preset quick --seed 3",
    ),
    "3dshapes-plain": (
        "the plain VAE for comparison: everything in the code (α = 0; on a CPU)",
        "hlvae fit --dataset 3dshapes --preset quick --alpha 0 --neighbourhood noise-mean --seed 3",
    ),
    "3dshapes-alpha-1": (
        "too large a step without noise: the local weights encode the shape as well (α = 1; on an H100, in TF32)",
        "hlvae fit --dataset 3dshapes --preset quick --alpha 1 --neighbourhood noise-mean --device cuda --precision high",  # noqa: E501
    ),
    "3dshapes-head": (
        "only the last layer is local, so that its posterior can be computed (α = 0.2; on a CPU)",
        "hlvae fit --dataset 3dshapes --preset quick --local-layers head",
    ),
    "3dshapes-64-local": (
        "64×64 images, the best of five seeds: close to the paper's scores (α = 0.2; on a CPU, then on an H100)",
        "hlvae fit --dataset 3dshapes --preset night --seed 1 --device cuda --precision high",
    ),
    "3dshapes-64-alpha-1": (
        "64×64 images and the paper's α = 1: z₃ is the size; z₁, z₈, z₁₀ the shape (17,400 steps on an H100, in TF32)",
        "hlvae fit --dataset 3dshapes --preset night --alpha 1 --steps 17400 --device cuda --precision high",
    ),
}
"""Pretrained runs by name: what each shows, and the command that trained it. `benchmarks/ship.py` copies their files to
`../pretrained/NAME`. All were trained on the replica of 3D Shapes."""

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
