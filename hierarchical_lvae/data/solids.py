"""Cars and toys for the stand-in for CarsNORB, built of the solids of `raycast`, and how they are rendered.

Lengths are in units of about the length of a car. An object stands on the floor around the origin, with x to its
front, y to its left and z up. The camera looks down on it by the elevation and circles it by the azimuth, in degrees;
at azimuth 0, the object's front is on the right. The lamps are distant and circle with the camera, so that the object
appears to turn on the spot. Objects cast no shadows.

As in `raycast`, an object is rendered as four *layers*, and an image is a weighted sum of them. The layers of a car are
the brightness of each of its paints; those of a toy are its brightness under each of four lamps.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from hierarchical_lvae.data.raycast import IMAGE_SIZE, Scene, Vector, camera_rays, column, hit_solid, solid_normal

SUPERSAMPLING = 2
CAMERA_DISTANCE, CAMERA_AIM, FOCAL_LENGTH = 3.0, 0.3, 4.0  # the camera looks at this height above the origin
UNIT = Scene(cube_side=1.0, cylinder_radius=0.5, cylinder_height=1.0, sphere_radius=0.5)  # each fills a unit cube

FLOOR = -1
BODY, DARK, WHITE, RED = range(4)
CAR_LAMP, CAR_AMBIENT = (-0.45, -0.55, 0.7), 0.4
LAMPS = ((-0.8, -0.4, 0.45), (0.8, -0.4, 0.45), (0.0, 0.8, 0.6), (0.0, -0.15, 1.0))  # left, right, behind, above
TOY_AMBIENT = 0.2
ALBEDO = (0.95, 0.55, 0.7)  # of BODY, DARK and FLOOR, in the world of toys


class Solid(NamedTuple):
    """A solid of `raycast`, stretched to fill a box."""

    shape: str
    paint: int
    centre: Vector
    size: Vector
    axis: int = 2
    """The coordinate along which a cylinder lies."""


def car(length: float, hull: float, cabin: str, at: float, cabin_length: float, height: float) -> tuple[Solid, ...]:
    """A car: `hull` is the height of its hull; `cabin`, a shape, has its centre at x = `at`."""
    top, wheels = 0.1 + hull, 0.32 * length
    glass = Solid("cube", DARK, (at, 0, top + height / 2), (cabin_length, 0.4, height))
    roof = Solid("cube", BODY, (at, 0, top + height), (0.85 * cabin_length, 0.36, 0.04))
    if cabin == "sphere":
        glass = Solid("sphere", DARK, (at, 0, top), (cabin_length, 0.4, 2 * height))
        roof = Solid("sphere", BODY, (at, 0, top + 0.4 * height), (0.85 * cabin_length, 0.34, 1.4 * height))
    return (
        Solid("cube", BODY, (0, 0, top - hull / 2 + 0.02), (length, 0.46, hull - 0.04)),
        glass,
        roof,
        *(Solid("cylinder", DARK, (x, 0, 0.11), (0.22, 0.48, 0.22), axis=1) for x in (wheels, -wheels)),
        Solid("cube", WHITE, (length / 2, 0, top - 0.09), (0.03, 0.42, 0.06)),
        Solid("cube", RED, (-length / 2, 0, top - 0.09), (0.03, 0.42, 0.06)),
    )


CARS = {
    "saloon": car(1.0, 0.22, "cube", -0.05, 0.5, 0.17),
    "estate": car(1.05, 0.22, "cube", -0.17, 0.7, 0.17),
    "hatchback": car(0.75, 0.24, "cube", -0.06, 0.5, 0.2),
    "coupé": car(1.05, 0.17, "sphere", -0.1, 0.6, 0.13),
    "beetle": car(0.8, 0.2, "sphere", -0.03, 0.65, 0.24),
    "pick-up": car(1.15, 0.24, "cube", 0.14, 0.32, 0.2),
    "van": car(1.0, 0.28, "cube", -0.1, 0.78, 0.28),
    "bus": car(1.3, 0.3, "cube", 0.0, 1.22, 0.24),
}

TOYS = {
    "animal": (
        Solid("sphere", BODY, (-0.05, 0, 0.4), (0.8, 0.3, 0.32)),
        *(Solid("cylinder", BODY, (x, y, 0.16), (0.09, 0.09, 0.32)) for x in (-0.3, 0.2) for y in (-0.09, 0.09)),
        Solid("cylinder", BODY, (0.3, 0, 0.52), (0.13, 0.13, 0.3)),
        Solid("sphere", BODY, (0.4, 0, 0.68), (0.34, 0.18, 0.18)),
        Solid("sphere", DARK, (-0.47, 0, 0.42), (0.2, 0.07, 0.07)),
    ),
    "human": (
        Solid("sphere", BODY, (0, 0, 0.48), (0.25, 0.36, 0.42)),
        Solid("sphere", BODY, (0, 0, 0.78), (0.2, 0.2, 0.22)),
        *(Solid("cylinder", DARK, (0, y, 0.15), (0.13, 0.13, 0.3)) for y in (-0.09, 0.09)),
        Solid("cylinder", BODY, (0.24, -0.18, 0.58), (0.48, 0.09, 0.09), axis=0),
        Solid("cylinder", BODY, (0, 0.2, 0.45), (0.09, 0.09, 0.32)),
    ),
    "plane": (
        Solid("sphere", BODY, (0, 0, 0.35), (1.2, 0.2, 0.2)),
        Solid("cube", BODY, (0.08, 0, 0.35), (0.26, 1.2, 0.04)),
        Solid("cube", BODY, (-0.5, 0, 0.38), (0.14, 0.46, 0.03)),
        Solid("cube", DARK, (-0.52, 0, 0.48), (0.16, 0.04, 0.26)),
        Solid("cylinder", DARK, (0, 0, 0.13), (0.08, 0.08, 0.26)),
    ),
    "lorry": (
        Solid("cube", BODY, (-0.16, 0, 0.43), (0.76, 0.44, 0.46)),
        Solid("cube", BODY, (0.4, 0, 0.3), (0.26, 0.4, 0.34)),
        Solid("cube", DARK, (0, 0, 0.15), (1.0, 0.36, 0.08)),
        *(Solid("cylinder", DARK, (x, 0, 0.1), (0.2, 0.46, 0.2), axis=1) for x in (-0.36, -0.12, 0.38)),
    ),
    "car": car(1.0, 0.22, "sphere", -0.05, 0.6, 0.2)[:5],
}
"""The categories of SmallNORB."""

STRETCHES = ((1.0, 1.0, 1.0), (1.15, 0.85, 0.75), (0.75, 1.1, 1.1))
"""The instances of each toy: its lengths along x, y and z are multiplied by these."""

CONSTANTS = (
    (CARS, CAR_LAMP, CAR_AMBIENT, TOYS, STRETCHES, LAMPS, TOY_AMBIENT, ALBEDO),
    (CAMERA_DISTANCE, CAMERA_AIM, FOCAL_LENGTH, SUPERSAMPLING),
)
"""All numbers that the layers depend on."""


def render_car(body: str, elevation: float, azimuth: float) -> Tensor:
    """Layers (4, 64, 64) of a car, in units of full brightness, in the order of `BODY`, `DARK`, `WHITE` and `RED`."""
    normal, paint = cast(CARS[body], elevation, azimuth)
    brightness = CAR_AMBIENT + (1 - CAR_AMBIENT) * _lit(normal, CAR_LAMP, azimuth)
    brightness[paint == FLOOR], paint[paint == FLOOR] = 1.0, WHITE
    return avg_pool2d(torch.stack([brightness * (paint == p) for p in (BODY, DARK, WHITE, RED)]), SUPERSAMPLING)


def render_toy(category: str, instance: int, elevation: float, azimuth: float) -> Tensor:
    """Layers (4, 64, 64) of a toy, in units of full brightness, in the order of `LAMPS`."""
    stretch = column(STRETCHES[instance])
    normal, paint = cast(TOYS[category], elevation, azimuth, stretch)
    albedo = torch.tensor(ALBEDO, dtype=torch.float32)[paint]
    layers = [albedo * (TOY_AMBIENT + (1 - TOY_AMBIENT) * _lit(normal, lamp, azimuth)) for lamp in LAMPS]
    return avg_pool2d(torch.stack(layers), SUPERSAMPLING)


def cast(
    solids: Sequence[Solid], elevation: float, azimuth: float, stretch: Tensor | float = 1.0
) -> tuple[Tensor, Tensor]:
    """What each ray of the camera hits: the surface's unit normals (3, h, w) and paints (h, w).

    Distances along a ray do not change if the ray is mapped, with the solid, to the solid's unit cube.
    """
    up = math.radians(elevation)
    across, height = CAMERA_DISTANCE * math.cos(up), CAMERA_DISTANCE * math.sin(up) + CAMERA_AIM
    view = replace(UNIT, camera_distance=across, camera_height=height, camera_pitch=-elevation)
    view = replace(view, focal_length=FOCAL_LENGTH)
    camera, direction = camera_rays(math.radians(azimuth), IMAGE_SIZE * SUPERSAMPLING, view)
    normal = column((0.0, 0.0, 1.0)).repeat(1, *direction.shape[1:])
    nearest = torch.full_like(direction[0], math.inf)
    paint = torch.full(nearest.shape, FLOOR)
    for solid in solids:
        order = [2 if i == solid.axis else solid.axis if i == 2 else i for i in range(3)]  # swaps z and the axis
        centre, size = stretch * column(solid.centre), stretch * column(solid.size)
        origin = ((camera - centre) / size)[order] + column((0.0, 0.0, 0.5))
        ray = (direction / size)[order]
        distance = hit_solid(origin, ray, solid.shape, 1.0, UNIT)
        hit = distance < nearest
        point = (origin + distance * ray)[:, hit, None]
        outward = solid_normal(point, solid.shape, 1.0, UNIT)[order] / size
        normal[:, hit] = normalize(outward, dim=0).squeeze(-1)
        nearest[hit], paint[hit] = distance[hit], solid.paint
    return normal, paint


def _lit(normal: Tensor, lamp: Vector, azimuth: float) -> Tensor:
    """The cosine (h, w) of the angle at which the lamp's light falls on a surface, or 0 from behind."""
    sin, cos = math.sin(math.radians(azimuth)), math.cos(math.radians(azimuth))
    x, y, z = lamp
    turned = normalize(column((x * cos - y * sin, x * sin + y * cos, z)), dim=0)
    return (normal * turned).sum(0).clamp(min=0)
