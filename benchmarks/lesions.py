"""Photos of a lesion and a calibration card on skin, made from a seed, with the truth in millimetres.

The skin is a plane made of real dermoscopic texture (`benchmarks.skin`); the lesion is a closed curve on it, whose
area, axes and asymmetry follow from the curve; a pinhole camera looks at both at an angle. The card may lie a few
millimetres above the skin, which no flat model can know.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.skin import Recipe, make_photo
from mappings.calibration_card import MARKERS, PATCHES, SIZE

Image = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]

SKIN = (200.0, 150.0)
"""Millimetres of skin that are drawn; the card lies above the lesion, near its middle."""
_CARD_AT = (57.0, 31.0)


@dataclass(frozen=True)
class Scene:
    """`radius` mm is the lesion's mean one, `irregular` how far its edge wanders (share of the radius), `soft` mm how
    wide the edge is, `contrast` the share of light it takes, `tilt` the camera's degrees away from straight above,
    `raised` mm how far the card lies above the skin, `cast` the colour of the light as gains of red, green and blue;
    the skin is drawn with `per_mm` pixels to the millimetre.
    """

    seed: int
    radius: float = 5.0
    oval: float = 0.2
    irregular: float = 0.08
    soft: float = 0.25
    contrast: float = 0.45
    tilt: float = 12.0
    raised: float = 0.0
    tone: str = "II"
    width: int = 3000
    shows: float = 130.0
    cast: tuple[float, float, float] = (1.0, 1.0, 1.0)
    exposure: float = 1.0
    card: bool = True
    per_mm: int = 12


@dataclass(frozen=True)
class Photo:
    """A JPEG and its truth: the curve in mm and in pixels, and the camera (mm on the skin -> pixels)."""

    jpeg: bytes
    curve: Points
    seen_curve: Points
    camera: Points

    @property
    def middle(self) -> tuple[float, float]:
        x, y = self.seen_curve.mean(axis=0)
        return float(x), float(y)

    @property
    def area(self) -> float:
        return float(cv2.contourArea(self.curve.astype(np.float32)))

    def seen(self, millimetres: Points) -> Points:
        """Points of the skin as pixels of the photo."""
        return np.asarray(cv2.perspectiveTransform(millimetres[None], self.camera)[0])


def take(scene: Scene) -> Photo:
    """The photo of a scene; the same scene always gives the same bytes."""
    rng = np.random.default_rng([scene.seed, 7])
    curve = _curve(scene, rng)
    size = (scene.width, scene.width * 3 // 4)
    angles = (scene.tilt * np.cos(heading := rng.uniform(0, 2 * np.pi)), scene.tilt * np.sin(heading))
    turn = rng.uniform(-25, 25)
    camera = _camera(scene, size, angles, turn, 0.0)
    linear = _linear(_skin(scene.seed % 6, scene.tone, scene.per_mm)) * _lesion(curve, scene)[..., None] ** np.array(
        [0.75, 1.0, 1.2]
    )
    picture = _seen(linear.astype(np.float32), camera, size, scene.per_mm)
    if scene.card:
        above = _camera(scene, size, angles, turn, scene.raised) @ _moved(*_CARD_AT)
        card, covered = _card()
        shown = _seen(covered, above, size, _CARD_PER_MM)
        picture = picture * (1 - shown) + _seen(card, above, size, _CARD_PER_MM) * shown
    xs, ys = np.meshgrid(np.linspace(-1, 1, size[0]), np.linspace(-1, 1, size[1]))
    slope = rng.uniform(-0.06, 0.06, 2)
    light = (1 + slope[0] * xs + slope[1] * ys)[..., None] * np.array(scene.cast) * scene.exposure
    blurred = cv2.GaussianBlur((picture * light).astype(np.float32), (0, 0), rng.uniform(0.6, 1.2))
    encoded = np.clip(blurred, 0, 1) ** (1 / 2.2) * 255 + rng.normal(0, 2.0, (*size[::-1], 1))
    photo = np.clip(encoded, 0, 255).round().astype(np.uint8)
    _, jpeg = cv2.imencode(".jpg", photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    seen = cv2.perspectiveTransform(curve[None], camera)[0]
    return Photo(jpeg.tobytes(), curve, seen, camera)


def _curve(scene: Scene, rng: np.random.Generator) -> Points:
    angle = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    wander = sum(rng.normal(0, 1) / k * np.sin(k * angle + rng.uniform(0, 6)) for k in range(2, 7))
    radius = scene.radius * (1 + scene.irregular * np.asarray(wander))
    x, y = radius * np.cos(angle) * (1 + scene.oval), radius * np.sin(angle) * (1 - scene.oval)
    turn = rng.uniform(0, np.pi)
    middle = (SKIN[0] / 2 + rng.uniform(-8, 8), _CARD_AT[1] + SIZE[1] + 4 + 1.6 * scene.radius)
    return np.asarray(np.c_[x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)] + middle)


def _camera(scene: Scene, size: tuple[int, int], tilt: tuple[float, float], turn: float, height: float) -> Points:
    """mm on a plane `height` mm above the skin -> pixels: a camera 320 mm away, looking at the scene's middle."""
    rx, ry, rz = (np.deg2rad(one) for one in (*tilt, turn))
    around_x = np.array([[1, 0, 0], [0, np.cos(rx), -np.sin(rx)], [0, np.sin(rx), np.cos(rx)]])
    around_y = np.array([[np.cos(ry), 0, np.sin(ry)], [0, 1, 0], [-np.sin(ry), 0, np.cos(ry)]])
    around_z = np.array([[np.cos(rz), -np.sin(rz), 0], [np.sin(rz), np.cos(rz), 0], [0, 0, 1]])
    rotation = around_x @ around_y @ around_z
    middle = np.array([SKIN[0] / 2, SKIN[1] / 2 + 2, 0.0])
    distance = 320.0
    shift = np.array([0, 0, distance]) - rotation @ middle + rotation @ np.array([0, 0, -height])
    focal = distance * size[0] / scene.shows
    inner = np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]])
    return np.asarray(inner @ np.column_stack([rotation[:, 0], rotation[:, 1], shift]))


def _lesion(curve: Points, scene: Scene) -> npt.NDArray[np.float32]:
    """How much of the light the skin with the lesion gives back, on the skin's own pixels."""
    shape = np.zeros((round(SKIN[1] * scene.per_mm), round(SKIN[0] * scene.per_mm)), np.uint8)
    shift = 6
    cv2.fillPoly(shape, [((curve * scene.per_mm - 0.5) * 2**shift).round().astype(np.int32)], 255, cv2.LINE_AA, shift)
    soft = cv2.GaussianBlur(shape.astype(np.float32) / 255, (0, 0), max(0.4, scene.soft * scene.per_mm / 2))
    return np.asarray(1 - scene.contrast * soft, np.float32)


@cache
def _skin(number: int, tone: str, per_mm: int) -> Image:
    width, height = (round(edge * per_mm) for edge in SKIN)
    made = make_photo(Recipe(seed=number, width=width, moles=0, glare=0, tone=tone))
    return np.ascontiguousarray(made[:height, :width, ::-1])


_CARD_PER_MM = 20


@cache
def _card() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The card as light it gives back, and 1 where it is; drawn from its layout."""
    width, height = (round(edge * _CARD_PER_MM) for edge in SIZE)
    card = np.full((height, width, 3), 243, np.float32)
    for square in (*MARKERS, *PATCHES):
        x, y, edge = (round(one * _CARD_PER_MM) for one in (*square.at, square.edge))
        card[y : y + edge, x : x + edge] = square.srgb if not square.bits else 8
        module = square.edge / 7
        for row, bits in enumerate(square.bits, start=1):
            for column, bit in enumerate(bits, start=1):
                if bit == "1":
                    left, top = square.at[0] + column * module, square.at[1] + row * module
                    a, b, c, d = (round(one * _CARD_PER_MM) for one in (left, top, left + module, top + module))
                    card[b:d, a:c] = 243
    return _linear(card), np.ones((height, width, 3), np.float32)


def _seen(
    plane: npt.NDArray[np.float32], camera: Points, size: tuple[int, int], per_mm: int
) -> npt.NDArray[np.float32]:
    """What the camera sees of pixels `per_mm` to the millimetre, the plane's corner being (0, 0) mm."""
    from_pixels = np.array([[1 / per_mm, 0, 0.5 / per_mm], [0, 1 / per_mm, 0.5 / per_mm], [0, 0, 1]])
    step = per_mm * np.sqrt(abs(np.linalg.det(np.linalg.inv(camera / camera[2, 2])[:2, :2])))
    smooth = cv2.GaussianBlur(plane, (0, 0), max(0.3, 0.35 * step))
    return np.asarray(
        cv2.warpPerspective(smooth, camera @ from_pixels, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    )


def _linear(picture: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.asarray((picture / np.float32(255)) ** np.float32(2.2), np.float32)


def _moved(x: float, y: float) -> Points:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])
