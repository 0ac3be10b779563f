"""Colors, textures, clutter and outlines of the built-in data sets, drawn at random. Floor 2."""

import colorsys
import math

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

Canvas = Float32[np.ndarray, "H W 3"]  # RGB in 0…1
Pattern = Float32[np.ndarray, "H W"]  # in 0…1


def _color(
    generator: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]
) -> Float32[np.ndarray, "3"]:
    """A random color, RGB in 0…1, of any hue and with saturation and value in the ranges."""
    hue, s, v = generator.random(), generator.uniform(*saturation), generator.uniform(*value)
    return np.array(colorsys.hsv_to_rgb(hue, s, v), dtype=np.float32)


def pattern_of(generator: np.random.Generator, size: tuple[int, int], period: float) -> Pattern:
    """Stripes, dots, checks, speckles or a gradient, turned at random; `period` in pixels."""
    height, width = size
    kind = generator.integers(5)
    if kind == 0:
        return _speckles(generator, size, period)
    angle = generator.uniform(0, 2 * np.pi)
    shift_u, shift_v = generator.uniform(0, 2 * np.pi, size=2)
    rows = np.arange(height, dtype=np.float32)[:, None]
    columns = np.arange(width, dtype=np.float32)[None, :]
    u = columns * np.float32(math.cos(angle)) + rows * np.float32(math.sin(angle))
    v = rows * np.float32(math.cos(angle)) - columns * np.float32(math.sin(angle))
    frequency = np.float32(2 * np.pi / period)
    wave_u = np.sin(frequency * u + np.float32(shift_u))
    wave_v = np.sin(frequency * v + np.float32(shift_v))
    if kind == 1:
        pattern = (u - u.min()) / max(float(np.ptp(u)), 1.0)
    elif kind == 2:
        pattern = 0.5 + 1.5 * wave_u
    elif kind == 3:
        pattern = 0.5 + 2.5 * wave_u * wave_v
    else:
        pattern = 0.5 + 2 * (wave_u + wave_v - 0.7)
    clipped: Pattern = np.clip(pattern, 0, 1, dtype=np.float32)
    return clipped


def _speckles(generator: np.random.Generator, size: tuple[int, int], period: float) -> Pattern:
    """Smooth random values; neighbors `period` pixels apart are independent."""
    height, width = size
    coarse = (max(2, math.ceil(height / period) + 1), max(2, math.ceil(width / period) + 1))
    grid = generator.random(coarse, dtype=np.float32)
    smooth = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    speckles: Pattern = np.clip(smooth, 0, 1)  # the cubic overshoots
    return speckles


def mix(pattern: Pattern, first: np.ndarray, second: np.ndarray) -> Canvas:
    """Two colors, the second as far as the pattern says."""
    first, second = first.astype(np.float32), second.astype(np.float32)
    mixed: Canvas = first + pattern[:, :, None] * (second - first)
    return mixed


def background(generator: np.random.Generator, size: tuple[int, int]) -> Canvas:
    """Two uneven tones with a faint texture, soft blobs and strokes: clutter that is no object."""
    side = min(size)
    # what is smooth is painted small, since it costs a sixteenth
    small = (math.ceil(size[0] / 4), math.ceil(size[1] / 4))
    first = _color(generator, (0.05, 0.55), (0.2, 0.9))
    second = np.clip(first + generator.normal(0, 0.12, size=3), 0, 1)
    tones = _speckles(generator, small, min(small) * generator.uniform(0.15, 0.5))
    smooth = mix(tones, first, second)
    for _ in range(generator.integers(2, 7)):
        _paint_blob(generator, smooth)
    canvas: Canvas = cv2.resize(smooth, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    texture = pattern_of(generator, size, side * generator.uniform(0.03, 0.15))
    canvas += ((texture - 0.5) * np.float32(generator.uniform(0.02, 0.12)))[:, :, None]
    for _ in range(generator.integers(2, 10)):
        _paint_stroke(generator, canvas)
    return canvas.clip(0, 1)


def _paint_blob(generator: np.random.Generator, canvas: Canvas) -> None:
    """Blend in a spot without an edge, so that it is not taken for a circle."""
    height, width = canvas.shape[:2]
    radii = min(height, width) * generator.uniform(0.06, 0.25, size=2)
    center_x, center_y = generator.random(2) * (width, height)
    columns = ((np.arange(width) - center_x) / radii[0]) ** 2
    rows = ((np.arange(height) - center_y) / radii[1]) ** 2
    weight = np.exp(-columns)[None, :] * np.exp(-rows)[:, None] * generator.uniform(0.3, 0.8)
    color = _color(generator, (0.0, 0.8), (0.1, 1.0))
    canvas += weight.astype(np.float32)[:, :, None] * (color - canvas)


def _paint_stroke(generator: np.random.Generator, canvas: Canvas) -> None:
    """Draw an open line, straight, bent or curled."""
    height, width = canvas.shape[:2]
    side = min(height, width)
    num_points = int(generator.integers(2, 9))
    heading = generator.uniform(0, 2 * np.pi)
    headings = heading + np.cumsum(generator.normal(0, 0.5, size=num_points))
    lengths = side * generator.uniform(0.04, 0.22, size=num_points)
    steps = lengths[:, None] * np.stack((np.cos(headings), np.sin(headings)), axis=1)
    points = generator.random(2) * (width, height) + np.cumsum(steps, axis=0)
    color = [float(channel) for channel in _color(generator, (0.0, 0.9), (0.1, 1.0))]
    thickness = int(generator.integers(1, max(2, round(side / 40)) + 1))
    corners = np.round(points * 16).astype(np.int32)[:, None]
    cv2.polylines(canvas, [corners], False, color, thickness, cv2.LINE_AA, shift=4)


def contrasting_color(generator: np.random.Generator, below: np.ndarray) -> np.ndarray:
    """The first of a few random colors that differs clearly from `below`, or the last of them."""
    for _ in range(8):
        color = _color(generator, (0.1, 1.0), (0.2, 1.0))
        if float(np.linalg.norm(color - below)) > 0.35:
            break
    return color


def photograph(generator: np.random.Generator, canvas: Canvas) -> UInt8[np.ndarray, "H W 3"]:
    """Blur a little, add sensor noise and round to 8 bits."""
    sigma = generator.uniform(0.0, 0.9)
    if sigma > 0.3:  # a narrower blur changes nothing
        canvas = cv2.GaussianBlur(canvas, (0, 0), sigma)
    noise = generator.standard_normal(canvas.shape, dtype=np.float32)
    noise *= np.float32(generator.uniform(0.005, 0.04))
    noise += canvas
    noise *= 255
    return np.rint(np.clip(noise, 0, 255, out=noise), out=noise).astype(np.uint8)


def polygon(num_corners: int) -> Float[np.ndarray, "N 2"]:
    """The corners of a regular polygon on the circle of radius 1."""
    angles = 2 * np.pi * np.arange(num_corners) / num_corners
    return np.stack((np.cos(angles), np.sin(angles)), axis=1)


def rotation(angle: float) -> Float[np.ndarray, "2 2"]:
    """The matrix that turns points by `angle`."""
    return np.array(((math.cos(angle), -math.sin(angle)), (math.sin(angle), math.cos(angle))))
