"""Pairs of skin photographs whose displacement is known exactly, made from real dermoscopic textures and a seed.

A pair is one patch of skin seen twice. LEFT's pixels are the coordinates of the skin; RIGHT's camera sees it through
`View.skin_at`, an analytic map (perspective, the bend of a limb, a smooth stretch) that is inverted numerically for the
truth. What is fixed to the skin (lesions, furrows, vessels) moves with it; what is fixed to the camera (vignette, light
reflections) does not. Sizes are given for a photo 4000 px wide and scale with `width`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[Any]
Points = npt.NDArray[np.float64]

TEXTURES = Path(__file__).parents[1] / "tests" / "data" / "skin"
TONES = {"I": 1.0, "II": 0.85, "III": 0.66, "IV": 0.48, "V": 0.30, "VI": 0.17}
"""Share of the light that skin of each Fitzpatrick type returns here, relative to type I, in the green."""

NORMAL = {"stretch": 6.0, "limb": 0.0, "shared": 1.0, "new_hair": 0, "glare": 1, "rotation": 8.0, "moles": 30}
HARD = {"stretch": 25.0, "limb": 7.0, "shared": None, "new_hair": 40, "glare": 5, "rotation": 15.0, "moles": 16}


PORES = ((2.5, 0.010), (7.0, 0.012))
"""Fine texture, which light and pressure change from visit to visit: (sigma in px, strength) of its bands."""
MOTTLING = ((22.0, 0.014),)
"""Pigment, which stays."""


@dataclass(frozen=True)
class Recipe:
    """What a pair looks like. `stretch` is the largest smooth displacement (px at 4000 wide), `limb` the degrees the
    limb turned between the visits (0: flat), `shared` the share of the fine texture that both photos have (None: 15 to
    30 %), `lesion` the radius of a new lesion on RIGHT (0: none), `tone` a Fitzpatrick type."""

    seed: int
    kind: str = "close-up"
    width: int = 4000
    stretch: float = 6.0
    limb: float = 0.0
    shared: float | None = 1.0
    new_hair: int = 0
    glare: int = 1
    rotation: float = 8.0
    moles: int = 30
    lesion: float = 0.0
    tone: str = "II"
    quality: int = 90

    @property
    def height(self) -> int:
        return self.width * 3 // 4

    @property
    def unit(self) -> float:
        """Pixels per pixel of a 4000 px wide photo."""
        return self.width / 4000


@dataclass(frozen=True)
class View:
    """RIGHT's camera: `skin_at` says which point of the skin (of LEFT) each of its pixels shows."""

    size: tuple[int, int]
    homography: Points  # RIGHT -> flat skin
    waves: Points  # rows: amplitude x, amplitude y, frequency x, frequency y, phase
    limb: float
    offset: float = 0.0

    def skin_at(self, points: Points) -> Points:
        """(n, 2) pixels of RIGHT -> (n, 2) pixels of LEFT."""
        lifted = np.c_[points, np.ones(len(points))] @ self.homography.T
        x, y = lifted[:, 0] / lifted[:, 2], lifted[:, 1] / lifted[:, 2]
        if self.limb:
            centre, radius = self.size[0] / 2, self.size[0] * 0.8
            sine = np.clip((x - centre) / radius, -0.98, 0.98)
            x = centre + radius * np.sin(np.arcsin(sine) + np.deg2rad(self.limb)) - self.offset
        phase = np.multiply.outer(x, self.waves[:, 2]) + np.multiply.outer(y, self.waves[:, 3]) + self.waves[:, 4]
        shift = np.sin(phase) @ self.waves[:, :2]
        return np.c_[x, y] + shift

    def seen_at(self, points: Points) -> Points:
        """(n, 2) pixels of LEFT -> (n, 2) pixels of RIGHT, by Newton's method on `skin_at` (error < 1e-3 px)."""
        found = points.astype(np.float64).copy()
        for _ in range(30):
            error = self.skin_at(found) - points
            dx = self.skin_at(found + np.array([0.5, 0])) - self.skin_at(found - np.array([0.5, 0]))
            dy = self.skin_at(found + np.array([0, 0.5])) - self.skin_at(found - np.array([0, 0.5]))
            det = dx[:, 0] * dy[:, 1] - dx[:, 1] * dy[:, 0]
            step = np.c_[
                error[:, 0] * dy[:, 1] - error[:, 1] * dy[:, 0], dx[:, 0] * error[:, 1] - dx[:, 1] * error[:, 0]
            ]
            found -= np.clip(step / det[:, None], -400, 400)
            if np.abs(error).max() < 1e-4:
                break
        return found


@dataclass(frozen=True)
class Pair:
    """Two photos (BGR, uint8) and the truth between them; `lesion` is (x, y, radius) of the new one, in LEFT."""

    left: Image
    right: Image
    view: View
    recipe: Recipe
    lesion: tuple[float, float, float] | None = None

    def jpegs(self) -> list[bytes]:
        return [
            cv2.imencode(".jpg", one, [cv2.IMWRITE_JPEG_QUALITY, self.recipe.quality])[1].tobytes()
            for one in (self.left, self.right)
        ]

    def grid(self, step: int = 40) -> Points:
        """Points of LEFT that RIGHT shows too, 2 % away from either's edge."""
        width, height = self.view.size
        margin = 0.02 * width
        ys, xs = np.mgrid[margin : height - margin : step * 1j, margin : width - margin : step * 1j]
        points = np.c_[xs.ravel(), ys.ravel()]
        seen = self.view.seen_at(points)
        inside = (seen > margin).all(axis=1) & (seen[:, 0] < width - margin) & (seen[:, 1] < height - margin)
        if self.recipe.kind == "dermoscopic":
            inside &= (_rim(points, width, height) < -0.04) & (_rim(seen, width, height) < -0.04)
        return points[inside]

    def kept_contrast(self, to_right: Callable[[Points], Points]) -> float:
        """Darkness of the new lesion against the skin around it as a map shows it, relative to the true map."""
        x, y, radius = self.lesion or (0.0, 0.0, 0.0)
        steps = np.arange(-2.2 * radius, 2.2 * radius, max(1.0, radius / 25))
        xs, ys = np.meshgrid(x + steps, y + steps)
        points, distance = np.c_[xs.ravel(), ys.ravel()], np.hypot(xs - x, ys - y)
        last = np.array(self.view.size) - 1
        depth = []
        for where in (self.view.seen_at(points), to_right(points)):
            at = np.clip(where, 0, last).astype(np.float32).reshape(*xs.shape, 2)
            green = cv2.remap(self.right[..., 1], at[..., 0], at[..., 1], cv2.INTER_LINEAR).astype(float)
            depth.append(green[distance > 1.6 * radius].mean() - green[distance < 0.7 * radius].mean())
        return float(depth[1] / depth[0])


def make_pair(recipe: Recipe) -> Pair:
    """The pair of a recipe; the same recipe always gives the same pixels."""
    rng = np.random.default_rng([recipe.seed, 1])
    view = _view(recipe, rng)
    shared = rng.uniform(0.15, 0.30) if recipe.shared is None else recipe.shared
    margin = int(700 * recipe.unit)
    before, after = _skin(recipe, margin, shared)
    lesion = None
    if recipe.lesion:
        lesion = _new_lesion(recipe, view, rng)
        _blob(after, lesion[0] + margin, lesion[1] + margin, lesion[2], 0.42, rng)
    height, width = recipe.height, recipe.width
    left = before[margin : margin + height, margin : margin + width]
    right = _seen(after, view, margin)
    return Pair(_photographed(left, recipe, rng, 0), _photographed(right, recipe, rng, 1), view, recipe, lesion)


def make_photo(recipe: Recipe) -> Image:
    """One photo alone, for pairs that must not match."""
    rng = np.random.default_rng([recipe.seed, 1])
    _, after = _skin(recipe, 0, 1.0)
    return _photographed(after, recipe, rng, 0)


def _view(recipe: Recipe, rng: np.random.Generator) -> View:
    w, h, u = recipe.width, recipe.height, recipe.unit
    angle = np.deg2rad(rng.uniform(-recipe.rotation, recipe.rotation))
    scale = rng.uniform(0.9, 1.12)
    c, s = np.cos(angle) / scale, np.sin(angle) / scale
    shift = rng.uniform(-0.04, 0.04, 2) * w
    perspective = rng.uniform(-1, 1, 2) * 0.04 / w
    to_centre = np.array([[1, 0, -w / 2], [0, 1, -h / 2], [0, 0, 1]])
    back = np.array([[1, 0, w / 2 + shift[0]], [0, 1, h / 2 + shift[1]], [0, 0, 1]])
    homography = back @ np.array([[c, -s, 0], [s, c, 0], [*perspective, 1]]) @ to_centre
    count = 5
    wavelength = rng.uniform(1400, 3200, count) * u
    heading = rng.uniform(0, 2 * np.pi, count)
    waves = np.c_[rng.normal(size=(count, 2)), np.cos(heading), np.sin(heading), rng.uniform(0, 2 * np.pi, count)]
    waves[:, 2:4] *= (2 * np.pi / wavelength)[:, None]
    limb = recipe.limb * float(rng.choice([-1.0, 1.0]))
    offset = w * 0.8 * np.sin(np.deg2rad(limb))
    view = View((w, h), homography, waves, limb, float(offset))
    ys, xs = np.mgrid[0:h:30j, 0:w:40j]
    points = np.c_[xs.ravel(), ys.ravel()]
    phase = points @ waves[:, 2:4].T + waves[:, 4]
    largest = np.hypot(*(np.sin(phase) @ waves[:, :2]).T).max()
    waves[:, :2] *= recipe.stretch * u / largest
    return replace(view, waves=waves)


def _skin(recipe: Recipe, margin: int, shared: float) -> tuple[Image, Image]:
    """The skin before and after, float32 BGR reflectance 0..1, `margin` px wider on each side than LEFT."""
    rng = np.random.default_rng([recipe.seed, 2])
    size = (recipe.width + 2 * margin, recipe.height + 2 * margin)
    u = recipe.unit
    base = _texture(recipe.seed % 6, recipe.kind, size, rng)
    smooth = _blurred(base, 14 * u)
    detail = base - smooth
    fine, other = _noise(size, u, rng, PORES), _noise(size, u, rng, PORES)
    smooth += _noise(size, u, rng, MOTTLING)
    before, after = smooth + detail + fine, smooth + shared * (detail + fine)
    if shared < 1:
        after += (1 - shared) * (cv2.flip(detail, -1) + other)
    spots = np.random.default_rng([recipe.seed, 3])
    for _ in range(recipe.moles):
        x, y = spots.uniform(0, size[0]), spots.uniform(0, size[1])
        radius, depth, shape = spots.uniform(12, 60) * u, spots.uniform(0.15, 0.5), int(spots.integers(1 << 30))
        for skin in (before, after):
            _blob(skin, x, y, radius, depth, np.random.default_rng(shape))
    same, changed = np.random.default_rng([recipe.seed, 4]), np.random.default_rng([recipe.seed, 5])
    lines = [_hair(size, u, same) for _ in range(25)]
    _draw(before, lines if not recipe.new_hair else [_hair(size, u, changed) for _ in range(recipe.new_hair)], u)
    _draw(after, lines if not recipe.new_hair else [_hair(size, u, changed) for _ in range(recipe.new_hair)], u)
    tone = TONES[recipe.tone]
    darkened = np.array([tone**1.25, tone, tone**0.75], np.float32)
    return np.clip(before, 0, 1) * darkened, np.clip(after, 0, 1) * darkened


@cache
def _pictures() -> list[Image]:
    return [cv2.imread(str(path)) for path in sorted(TEXTURES.glob("*.jpg"))]


def _texture(number: int, kind: str, size: tuple[int, int], rng: np.random.Generator) -> Image:
    picture = _pictures()[number]
    h, w = picture.shape[:2]
    crop = picture[int(h * 0.1) : int(h * 0.9), int(w * 0.14) : int(w * 0.86)].astype(np.float32) / 255
    turned = np.ascontiguousarray(np.rot90(crop, 2)) if rng.random() < 0.5 else crop
    if kind != "dermoscopic":  # skin of the same colour and its own unevenness, the lesion washed out
        turned = 0.35 * _blurred(turned, w / 12) + 0.65 * np.median(turned, axis=(0, 1))
    large = cv2.resize(turned, size, interpolation=cv2.INTER_CUBIC)
    return np.asarray(large**2.0, np.float32)


def _noise(size: tuple[int, int], u: float, rng: np.random.Generator, bands: Sequence[tuple[float, float]]) -> Image:
    """Noise in bands of (sigma in px, strength), equal in all colours."""
    total = np.zeros(size[::-1], np.float32)
    for sigma, strength in bands:
        factor = max(1, int(sigma * u / 2))
        noise = rng.standard_normal((size[1] // factor + 2, size[0] // factor + 2), dtype=np.float32)
        band = cv2.GaussianBlur(noise, (0, 0), max(sigma * u / factor, 0.5))
        total += cv2.resize(band, size, interpolation=cv2.INTER_CUBIC) * np.float32(strength / band.std())
    return total[:, :, None]


def _blob(skin: Image, x: float, y: float, radius: float, depth: float, rng: np.random.Generator) -> None:
    """Darkens an uneven disc in place: a mole."""
    reach = int(radius * 2)
    x0, y0 = max(0, int(x) - reach), max(0, int(y) - reach)
    part = skin[y0 : int(y) + reach, x0 : int(x) + reach]
    if not part.size:
        return
    ys, xs = np.mgrid[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]]
    angle = np.arctan2(ys - y, xs - x)
    edge = radius * (1 + 0.12 * np.sin(2 * angle + rng.uniform(0, 6)) + 0.08 * np.sin(5 * angle + rng.uniform(0, 6)))
    inside = 1 / (1 + np.exp((np.hypot(xs - x, ys - y) - edge) / (0.09 * radius)))
    part *= (1 - inside[:, :, None] * depth * np.array([1.15, 1.0, 0.75])).astype(np.float32)


def _hair(size: tuple[int, int], u: float, rng: np.random.Generator) -> Image:
    start, heading, bend = rng.uniform(0, 1, 2) * size, rng.uniform(0, 2 * np.pi), rng.uniform(-1, 1)
    steps = np.linspace(0, 1, 20)
    angle = heading + bend * steps
    path = np.cumsum(np.c_[np.cos(angle), np.sin(angle)], axis=0) * rng.uniform(15, 45) * u
    return np.asarray((start + path) * 16).astype(np.int32)


def _draw(skin: Image, lines: Sequence[Image], u: float) -> None:
    mask = np.zeros(skin.shape[:2], np.uint8)
    for line in lines:
        cv2.polylines(mask, [line], False, 255, max(1, round(5 * u)), cv2.LINE_AA, 4)
    skin *= 1 - (cv2.GaussianBlur(mask, (0, 0), max(0.6, 1.2 * u)).astype(np.float32) / 255 * 0.7)[:, :, None]


def _new_lesion(recipe: Recipe, view: View, rng: np.random.Generator) -> tuple[float, float, float]:
    w, h = view.size
    while True:
        x, y = rng.uniform(0.2, 0.8) * w, rng.uniform(0.2, 0.8) * h
        seen = view.seen_at(np.array([[x, y]]))[0]
        if 0.12 * w < seen[0] < 0.88 * w and 0.12 * h < seen[1] < 0.88 * h:
            return float(x), float(y), recipe.lesion * recipe.unit


def _seen(skin: Image, view: View, margin: int) -> Image:
    """RIGHT's view of the skin; the map is evaluated at every 8th pixel and interpolated (error < 0.01 px)."""
    w, h = view.size
    across, down = _interpolation(w), _interpolation(h)
    ys, xs = np.mgrid[0 : down.shape[1], 0 : across.shape[1]] * 8.0
    nodes = view.skin_at(np.c_[xs.ravel(), ys.ravel()]).reshape(*xs.shape, 2) + margin
    x, y = (np.asarray(down @ nodes[..., axis] @ across.T, np.float32) for axis in (0, 1))
    return cv2.remap(skin, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)


def _interpolation(length: int, step: int = 8) -> Points:
    """(length, nodes) matrix that interpolates linearly between nodes `step` pixels apart."""
    at = np.arange(length) / step
    return np.maximum(0.0, 1 - np.abs(at[:, None] - np.arange(length // step + 2)))


def _photographed(skin: Image, recipe: Recipe, rng: np.random.Generator, visit: int) -> Image:
    """What the camera makes of it: light, reflections, blur, white balance, gamma, noise, 8 bits."""
    h, w = skin.shape[:2]
    u = recipe.unit
    xs, ys = np.linspace(-1, 1, w, dtype=np.float32), np.linspace(-1, 1, h, dtype=np.float32)[:, None]
    gx, gy, bow = (float(value) for value in rng.uniform(-0.22, 0.22, 3))
    light = 1 + gx * xs + gy * ys - abs(bow) * (xs**2 + ys**2)
    bright = float(np.percentile(skin[::16, ::16, 1], 60))
    exposure = min(1.5, (0.62 if visit else 0.55) / bright)
    balance = np.asarray(rng.uniform(0.92, 1.08, 3), np.float32)
    photo = skin * (light * np.float32(exposure))[:, :, None] * balance
    if recipe.kind == "dermoscopic":
        rim = np.hypot(xs, ys * 0.8) - 1.02
        photo *= (1 / (1 + np.exp(rim / 0.012)))[:, :, None].astype(np.float32)
        for y in (0.42, 0.58):  # the ring light, at the same place of every photo of this device
            photo += _spot(w, h, 0.02, y, 0.03)
    for _ in range(recipe.glare):
        photo += _spot(w, h, rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9), rng.uniform(0.004, 0.02))
    if visit:
        photo = _blurred(photo, rng.uniform(0.6, 1.6) * u)
    encoded = np.clip(photo, 0, 1.2) ** np.float32(1 / rng.uniform(1.9, 2.3)) * 255
    noise = rng.standard_normal((h, w, 1), dtype=np.float32) * 2.2
    return np.clip(encoded + noise, 0, 255).astype(np.uint8)


def _rim(points: Points, width: int, height: int) -> Points:
    """Below 0 inside the round field of a dermatoscope, in half widths."""
    return np.asarray(np.hypot(points[:, 0] / width * 2 - 1, (points[:, 1] / height * 2 - 1) * 0.8) - 1.02)


def _spot(w: int, h: int, x: float, y: float, radius: float) -> Image:
    xs, ys = np.arange(w, dtype=np.float32) / w - x, (np.arange(h, dtype=np.float32)[:, None] / h - y) * h / w
    return (1.6 * np.exp(-(((xs**2 + ys**2) / (2 * radius**2)) ** 2)))[:, :, None].astype(np.float32)


def _blurred(image: Image, sigma: float) -> Image:
    """A Gaussian; wide ones on a smaller copy, which looks the same and takes no time."""
    factor = int(sigma / 4)
    if factor < 2:
        return cv2.GaussianBlur(image, (0, 0), max(sigma, 0.3))
    small = cv2.resize(image, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
    return cv2.resize(
        cv2.GaussianBlur(small, (0, 0), sigma / factor), image.shape[1::-1], interpolation=cv2.INTER_CUBIC
    )
