"""A ray-caster for the scene of the 3D Shapes data set: one solid in a square room, seen by a camera that orbits it.

Lengths are in units in which half the room's width is 3.5. In the middle orientation, x points right, y away from the
camera and z up; the origin is the centre of the floor, where the solid stands. The camera orbits the z axis and looks
towards it; the room, the solid and the lamp are fixed.

This module does not handle colours. It renders a geometry (scale, shape, orientation) as four *layers*, the brightness
of each of four paints in every pixel. In every pixel and colour channel, an image is then

    image = min(1, sum over paints p of layer[p] * colour[p]),   p = floor, wall, object, sky.

A surface point with unit normal n has the brightness

    ambient + headlight * (n.v)+ + fill * (n.f)+ + key * spot * shadow * (n.l)+

with unit vectors v to the camera, f to a distant light in front of the room and l to a lamp above it. Here, (.)+ is
max(0, .), spot decreases away from the axis of the lamp's cone of light, and shadow is 0 where the solid blocks the
lamp, else 1. Solids also have a specular highlight (Blinn's half-vector lobe), in the colour of the sky. All numbers in
`Scene` were fitted to the 53 frames of the data set's published animation, with a mean absolute error of 3.6 of 255.
"""

import math
from dataclasses import astuple, dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

IMAGE_SIZE = 64
SCALES = 8
SHAPES = ("cube", "cylinder", "sphere", "capsule")
ORIENTATIONS = 15
PAINTS = ("floor", "wall", "object", "sky")
FLOOR, WALL, OBJECT, SKY = range(len(PAINTS))
SUPERSAMPLING = 4

Vector = tuple[float, float, float]
Interval = tuple[Tensor, Tensor]
"""The distances (h, w) at which each ray enters and leaves a convex body; nan or enter >= leave if it misses."""


@dataclass(frozen=True)
class Material:
    """How strongly a surface reflects each light: factors of its own colour (for gloss, of the sky's colour)."""

    ambient: float
    headlight: float = 0.0
    fill: float = 0.0
    key: float = 0.0
    gloss: float = 0.0


@dataclass(frozen=True)
class Scene:
    """All parameters of the scene: lengths in units of half the room's width / 3.5, angles in degrees."""

    camera_distance: float = 2.102
    camera_height: float = 0.63
    camera_pitch: float = 1.166
    focal_length: float = 2.016  # in half image widths
    max_orientation: float = 30.09

    room_half_width: float = 3.5
    wall_height: float = 1.9935

    min_scale: float = 0.7473
    max_scale: float = 1.2497
    cube_side: float = 0.63
    cylinder_radius: float = 0.3295
    cylinder_height: float = 0.677
    sphere_radius: float = 0.3777
    capsule_radius: float = 0.287
    capsule_height: float = 1.1745

    lamp: Vector = (-0.749, 0.103, 4.995)
    lamp_aim: Vector = (-1.654, 0.521, 0.0)
    spot_angle: float = 31.25  # from the cone's axis to where the brightness is half
    spot_softness: float = 11.28
    fill_direction: Vector = (0.208, -0.675, 0.708)
    gloss_exponent: float = 7.16

    floor: Material = Material(ambient=0.333, key=1.031)
    wall: Material = Material(ambient=0.446, headlight=0.217, fill=0.408, key=0.283)
    solid: Material = Material(ambient=0.54, headlight=0.409, key=1.681, gloss=0.206)
    sky: Material = Material(ambient=1.0)

    def scale(self, index: int) -> float:
        """Factor of a solid's lengths for scale index 0 ... SCALES - 1."""
        return self.min_scale + (self.max_scale - self.min_scale) * index / (SCALES - 1)

    def angle(self, index: int) -> float:
        """Angle of the camera's orbit in radians for orientation index 0 ... ORIENTATIONS - 1."""
        return math.radians(self.max_orientation) * (2 * index / (ORIENTATIONS - 1) - 1)


SCENE = Scene()


def column(vector: Vector) -> Tensor:
    """A vector as (3, 1, 1), to broadcast against fields of vectors (3, h, w)."""
    return torch.tensor(vector, dtype=torch.float32)[:, None, None]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(0)


def _unit(vectors: Tensor) -> Tensor:
    return vectors / _dot(vectors, vectors).sqrt()


def _along(axis: Tensor, signs: Tensor) -> Tensor:
    """Unit vectors (3, h, w) along the coordinate axes `axis` (h, w), with the signs of `signs` (3, h, w)."""
    return torch.sign(signs) * (torch.arange(3)[:, None, None] == axis)


def camera_rays(angle: float, samples: int, scene: Scene = SCENE) -> tuple[Tensor, Tensor]:
    """The camera's position (3, 1, 1) and the rays' unit directions (3, samples, samples), top row first."""
    pitch = math.radians(scene.camera_pitch)
    sin, cos = math.sin(angle), math.cos(angle)
    right = column((cos, sin, 0.0))
    forward = column((-sin * math.cos(pitch), cos * math.cos(pitch), math.sin(pitch)))
    up = column((sin * math.sin(pitch), -cos * math.sin(pitch), math.cos(pitch)))
    screen = (torch.arange(samples, dtype=torch.float32) + 0.5) * (2 / samples) - 1
    position = column((scene.camera_distance * sin, -scene.camera_distance * cos, scene.camera_height))
    return position, _unit(scene.focal_length * forward + screen * right - screen[:, None] * up)


def hit_room(origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where rays (3, h, w) from inside hit the room: distance (h, w), normal (3, h, w) and paint (h, w)."""
    planes = torch.sign(direction) * column((SCENE.room_half_width, SCENE.room_half_width, 0.0))
    distances = (planes - origin) / direction
    distances[2].masked_fill_(direction[2] >= 0, math.inf)
    distance, axis = distances.min(0)
    height = origin[2] + distance * direction[2]
    paint = torch.where(axis == 2, FLOOR, torch.where(height < SCENE.wall_height, WALL, SKY))
    return distance, _along(axis, -direction), paint


def _slab(origin: Tensor, direction: Tensor, axis: int, low: float, high: float) -> Interval:
    a, b = (low - origin[axis]) / direction[axis], (high - origin[axis]) / direction[axis]
    return torch.minimum(a, b), torch.maximum(a, b)


def _round(origin: Tensor, direction: Tensor, radius: float) -> Interval:
    """A ball around the origin or, given only the first two coordinates (2, h, w), an infinite vertical tube."""
    a, b, c = _dot(direction, direction), _dot(origin, direction), _dot(origin, origin) - radius**2
    root = (b * b - a * c).sqrt()
    return (-b - root) / a, (-b + root) / a


def _enter(*bodies: Interval) -> Tensor:
    """Distance (h, w) to the intersection of the bodies, infinite where the ray misses it."""
    near, far = bodies[0]
    for body_near, body_far in bodies[1:]:
        near, far = torch.maximum(near, body_near), torch.minimum(far, body_far)
    return torch.where((near < far) & (near > 0), near, math.inf)


def hit_solid(origin: Tensor, direction: Tensor, shape: str, scale: float, scene: Scene = SCENE) -> Tensor:
    """Distance (h, w) at which rays (3, h, w) from outside hit the solid, infinite where they miss it.

    Raises:
        ValueError: there is no such shape.
    """

    def ball(height: float, radius: float) -> Interval:
        return _round(origin - column((0.0, 0.0, height)), direction, radius)

    def tube(radius: float) -> Interval:
        return _round(origin[:2], direction[:2], radius)

    def slab(axis: int, low: float, high: float) -> Interval:
        return _slab(origin, direction, axis, low, high)

    match shape:
        case "cube":
            half = scale * scene.cube_side / 2
            return _enter(slab(0, -half, half), slab(1, -half, half), slab(2, 0.0, 2 * half))
        case "cylinder":
            return _enter(tube(scale * scene.cylinder_radius), slab(2, 0.0, scale * scene.cylinder_height))
        case "sphere":
            return _enter(ball(scale * scene.sphere_radius, scale * scene.sphere_radius))
        case "capsule":
            radius = scale * scene.capsule_radius
            top = scale * scene.capsule_height - radius
            ends = torch.minimum(_enter(ball(radius, radius)), _enter(ball(top, radius)))
            return torch.minimum(ends, _enter(tube(radius), slab(2, radius, top)))
        case _:
            raise ValueError(f"unknown shape {shape!r}")


def solid_normal(point: Tensor, shape: str, scale: float, scene: Scene = SCENE) -> Tensor:
    """Outward unit normals (3, h, w) at points (3, h, w) on the solid's surface.

    Raises:
        ValueError: there is no such shape.
    """
    up = column((0.0, 0.0, 1.0))
    match shape:
        case "cube":
            offset = point - up * (scale * scene.cube_side / 2)
            return _along(offset.abs().argmax(0), offset)
        case "cylinder":
            on_top = point[2] > 0.999 * scale * scene.cylinder_height
            return torch.where(on_top, up, _unit(point - up * point[2]))
        case "sphere":
            return _unit(point - up * (scale * scene.sphere_radius))
        case "capsule":
            radius, height = scale * scene.capsule_radius, scale * scene.capsule_height
            return _unit(point - up * point[2].clamp(radius, height - radius))
        case _:
            raise ValueError(f"unknown shape {shape!r}")


def shade(point: Tensor, normal: Tensor, paint: Tensor, lit: Tensor, camera: Tensor) -> tuple[Tensor, Tensor]:
    """Brightness (h, w) of surface points (3, h, w), and how much of the sky's colour they reflect (h, w)."""
    to_camera, to_lamp = _unit(camera - point), _unit(column(SCENE.lamp) - point)
    cone_axis = _unit(column(SCENE.lamp) - column(SCENE.lamp_aim))
    off_axis = torch.rad2deg(torch.acos(_dot(to_lamp, cone_axis).clamp(-1, 1)))
    spot = lit * torch.sigmoid((SCENE.spot_angle - off_axis) / SCENE.spot_softness)

    materials = [astuple(material) for material in (SCENE.floor, SCENE.wall, SCENE.solid, SCENE.sky)]
    ambient, headlight, fill, key, gloss = torch.tensor(materials, dtype=torch.float32)[paint].movedim(-1, 0)
    brightness = (
        ambient
        + headlight * _dot(normal, to_camera).clamp(min=0)
        + fill * _dot(normal, _unit(column(SCENE.fill_direction))).clamp(min=0)
        + key * spot * _dot(normal, to_lamp).clamp(min=0)
    )
    lobe = _dot(normal, _unit(to_camera + to_lamp)).clamp(min=0) ** SCENE.gloss_exponent
    return brightness, gloss * spot * lobe


def render_geometry(scale: int, shape: int, orientation: int, supersampling: int = SUPERSAMPLING) -> Tensor:
    """Layers (4, 64, 64) of one geometry, float32 in units of full brightness, in the order of `PAINTS`.

    Each pixel is the mean over supersampling x supersampling rays.
    """
    size, name = SCENE.scale(scale), SHAPES[shape]
    camera, direction = camera_rays(SCENE.angle(orientation), IMAGE_SIZE * supersampling)
    room_distance, room_normal, room_paint = hit_room(camera, direction)
    solid_distance = hit_solid(camera, direction, name, size)
    on_solid = solid_distance < room_distance

    point = camera + torch.minimum(room_distance, solid_distance) * direction
    normal = torch.where(on_solid, solid_normal(point, name, size), room_normal)
    paint = torch.where(on_solid, OBJECT, room_paint)
    to_lamp = _unit(column(SCENE.lamp) - point)
    lit = on_solid | hit_solid(point, to_lamp, name, size).isinf()  # a convex solid shadows itself if n.l < 0

    brightness, mirrored = shade(point, normal, paint, lit, camera)
    layers = torch.stack([brightness * (paint == p) for p in range(len(PAINTS))])
    layers[SKY] += mirrored
    return avg_pool2d(layers, supersampling)
