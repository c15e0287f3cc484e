"""Draws a small imitation of the competition, traps included, so that everything runs with no account.

An animal is a list of parts in its own coordinates (y down, a head about 100 units wide), painted in order
onto a scene. The same seed gives the same bytes: random numbers are integers, every coordinate is rounded
before it is drawn, and what the pixels go through afterwards is integer arithmetic.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from pipeline.competition.boxes import BOX
from pipeline.competition.images import SIZE, decode_image, encode_image


KINDS = ("Cat", "Dog", "Elephant", "Tiger")
COLUMNS = ("filename", "box1_row", "box1_col", "box2_row", "box2_col")
TWINS_PER_1000 = 225  # test images with a near-identical training image
TRAIN_TWINS_PER_1000 = 40  # training images that repeat another training image
TWIN, APART = 0.02, 0.085  # RMSE of 32 x 32 thumbnails: twins at most, two different drawings at least

Colour = tuple[int, int, int]
Part = tuple[np.ndarray, Colour, int]  # outline float [n, 2] as (x, y); RGB; relief, 0 for flat and hairless
Coat = tuple[Colour, Colour, Colour, Colour]  # base, pale (belly, muzzle), dark (markings), iris

BLACK, WHITE, PINK, IVORY = (24, 20, 22), (250, 250, 248), (226, 138, 140), (244, 236, 212)
COATS: dict[str, list[Coat]] = {
    "Cat": [
        ((222, 146, 74), (250, 226, 192), (172, 92, 34), (120, 176, 60)),
        ((140, 138, 136), (226, 224, 220), (72, 70, 72), (206, 190, 60)),
        ((52, 50, 56), (92, 88, 94), (30, 28, 32), (226, 206, 70)),
        ((238, 234, 228), (254, 252, 248), (206, 198, 190), (90, 160, 214)),
        ((222, 200, 170), (244, 232, 212), (112, 84, 66), (84, 160, 226)),
        ((146, 106, 70), (224, 200, 168), (74, 48, 30), (140, 190, 80)),
    ],
    "Dog": [
        ((220, 172, 104), (246, 222, 176), (176, 120, 60), (66, 40, 22)),
        ((122, 76, 46), (192, 146, 104), (78, 46, 28), (90, 60, 24)),
        ((62, 56, 56), (200, 146, 92), (36, 32, 34), (60, 38, 24)),
        ((240, 234, 224), (254, 250, 244), (150, 92, 50), (56, 36, 24)),
        ((150, 150, 158), (228, 226, 226), (84, 84, 94), (86, 130, 170)),
        ((190, 110, 56), (246, 232, 210), (132, 70, 32), (64, 40, 22)),
    ],
    "Elephant": [
        ((142, 142, 148), (172, 168, 172), (100, 100, 108), (60, 40, 26)),
        ((150, 136, 124), (184, 166, 152), (106, 94, 84), (60, 40, 26)),
        ((116, 120, 130), (150, 148, 156), (80, 84, 92), (70, 44, 26)),
    ],
    "Tiger": [
        ((232, 136, 44), (252, 240, 218), (34, 24, 20), (222, 186, 70)),
        ((216, 120, 40), (246, 232, 204), (40, 26, 20), (170, 190, 80)),
        ((240, 160, 70), (254, 246, 228), (46, 32, 24), (226, 200, 90)),
    ],
}
# A scene: upper sky, lower sky, hills, far ground, near ground, light on the animal (128 is neutral), ornaments
SCENES: dict[str, tuple[Colour, Colour, Colour, Colour, Colour, Colour, str]] = {
    "meadow": ((84, 150, 220), (200, 226, 240), (96, 146, 116), (134, 178, 76), (66, 124, 40),
               (130, 130, 124), "clouds hills grass flowers"),
    "savanna": ((110, 66, 120), (250, 170, 84), (150, 84, 70), (206, 150, 70), (130, 84, 36),
                (134, 120, 106), "sun hills acacias grass"),
    "forest": ((150, 186, 120), (206, 220, 150), (70, 110, 66), (92, 108, 54), (52, 62, 30),
               (122, 128, 114), "trunks grass"),
    "snow": ((150, 176, 206), (226, 232, 240), (150, 170, 190), (236, 240, 246), (196, 212, 232),
             (124, 128, 134), "hills pines flakes"),
    "beach": ((96, 176, 214), (214, 234, 232), (64, 150, 170), (240, 220, 172), (206, 172, 118),
              (132, 130, 122), "clouds sea"),
    "night": ((18, 24, 60), (66, 84, 140), (32, 44, 80), (44, 66, 70), (22, 34, 40),
              (98, 104, 124), "sun stars hills pines grass"),
}  # fmt: skip
PLACES = {
    "Cat": ("indoors", "studio", "indoors", "meadow", "snow", "beach", "night"),
    "Dog": ("meadow", "studio", "indoors", "beach", "snow", "forest", "savanna"),
    "Elephant": ("savanna", "meadow", "studio", "forest", "beach", "night", "savanna"),
    "Tiger": ("forest", "snow", "studio", "savanna", "meadow", "night", "forest"),
}


# ---- outlines: float64 [n, 2], ordered so that point i lies across from point -1-i


def _cosine(degrees: int) -> float:
    return round(math.cos(math.radians(degrees)) * 1024) / 1024  # rounded: the last bit differs between CPUs


CIRCLE = np.array([(_cosine(a), _cosine(a - 90)) for a in range(0, 360, 10)])


def _turn(points: np.ndarray, degrees: int) -> np.ndarray:
    (x, y), c, s = points.T, _cosine(degrees), _cosine(degrees - 90)
    return np.stack([x * c - y * s, x * s + y * c], axis=1)


def _oval(x: float, y: float, rx: float, ry: float, tilt: int = 0) -> np.ndarray:
    return _turn(CIRCLE * (rx, ry), tilt) + (x, y)


def _closed(*knots: tuple[float, float]) -> np.ndarray:
    """A closed Catmull-Rom curve through the knots, 8 points a knot."""
    p1 = np.array(knots, float)[:, None]
    p0, p2, p3 = (np.roll(p1, n, axis=0) for n in (1, -1, -2))
    t = np.arange(8)[:, None] / 8
    cubic = p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0))
    return (p1 + t / 2 * cubic).reshape(-1, 2)


def _even(*knots: tuple[float, float]) -> np.ndarray:
    """A closed curve that is its own mirror image, from its right half, top to bottom."""
    return _closed(*knots, *((-x, y) for x, y in knots[-2:0:-1]))


def _tube(a: tuple, b: tuple, c: tuple, d: tuple, start: float, end: float) -> np.ndarray:
    """A cubic Bezier curve as a band, `start` wide at `a` and `end` wide at `d`."""
    t = np.arange(17)[:, None] / 16
    s = 1 - t
    (a, b, c, d) = (np.array(p, float) for p in (a, b, c, d))
    line = s * s * s * a + 3 * s * s * t * b + 3 * s * t * t * c + t * t * t * d
    along = np.gradient(line, axis=0)
    across = along[:, ::-1] * (-1, 1) / np.sqrt(along[:, :1] ** 2 + along[:, 1:] ** 2)
    side = across * (start + (end - start) * t) / 2
    return np.concatenate([line + side, (line - side)[::-1]])


def _bands(outline: np.ndarray, colour: Colour, rng: np.random.Generator, step: int, depth: int) -> list[Part]:
    """Tapered stripes from both edges of an outline towards the opposite edge, `depth` percent of the way."""
    found = []
    for n, i in enumerate(range(3, len(outline) // 2 - 2, step)):
        i = i if n % 3 else len(outline) - 1 - i
        near, far = outline[i], outline[-1 - i]
        width = (outline[i - 1] - outline[i + 1]) * int(rng.integers(40, 75)) / 100
        tip = near + (far - near) * int(rng.integers(depth * 6 // 10, depth + 1)) / 100
        middle = (near + tip) / 2 + width * int(rng.integers(-60, 61)) / 100
        found.append((_closed(near + width, middle + width * 0.7, tip, middle - width * 0.7, near - width), colour, 3))
    return found


# ---- colours


def _tone(colour: Colour, percent: int) -> Colour:
    return tuple(min(255, v * percent // 100) for v in colour)


def _vary(colour: Colour, rng: np.random.Generator, amount: int) -> Colour:
    shift = int(rng.integers(-amount, amount + 1)) + rng.integers(-amount // 2, amount // 2 + 1, 3)
    return tuple(int(v) for v in np.clip(np.array(colour) + shift, 0, 255))


def _pick(rng: np.random.Generator, choices):
    return choices[int(rng.integers(len(choices)))]


# ---- animals


def _both(*parts: Part) -> list[Part]:
    """Each part and its mirror image."""
    return [(p * flip, colour, relief) for p, colour, relief in parts for flip in ((1, 1), (-1, 1))]


def _placed(parts: list[Part], x: float, y: float, scale: float, tilt: int, flip: int = 1) -> list[Part]:
    at = (x, y)
    return [(_turn(p * scale, tilt) * (flip, 1) + at, colour, relief) for p, colour, relief in parts]


def _eyes(x: float, y: float, size: float, iris: Colour, pupil: float) -> list[Part]:
    eye = (_oval(x, y, size, size * 0.95, 8), BLACK, 0)
    ball = (_oval(x, y, size * 0.86, size * 0.82), iris, 0)
    dark = (_oval(x, y, size * pupil, size * 0.7), BLACK, 0)
    glint = [(_oval(side * x - size * 0.25, y - size * 0.35, size * 0.24, size * 0.24), WHITE, 0) for side in (1, -1)]
    return _both(eye, ball, dark) + glint


def _cat_head(coat: Coat, marked: bool, rng: np.random.Generator) -> list[Part]:
    base, pale, dark, iris = coat
    face = _even((0, -42), (26, -40), (46, -16), (54, 12), (32, 36), (0, 43))
    parts = _both(
        (np.array([(50.0, -8), (47, -40), (43, -80), (26, -62), (8, -40), (20, -10)]), base, 8),
        (np.array([(43.0, -28), (40, -66), (29, -54), (19, -38)]), PINK, 5),
    ) + [(face, base, 14)]
    if marked:
        parts += _bands(face, dark, rng, 6, 26)
        parts += [(_oval(x, -32, 3.4, 10, x), dark, 3) for x in (-13, 0, 13)]
    parts += _both((_oval(12, 21, 16, 12), pale, 9)) + [(_oval(0, 33, 11, 8), pale, 6)]
    parts += _eyes(22, -6, 12, iris, _pick(rng, (0.24, 0.45, 0.6)))
    mouth = _tube((0, 16), (1, 24), (8, 28), (15, 24), 2, 1.4)
    parts += [(_closed((-7, 9), (0, 7), (7, 9), (0, 17)), PINK, 0)] + _both((mouth, _tone(dark, 60), 0))
    hair = WHITE if sum(base) < 560 else (120, 112, 108)
    return parts + _both(*((_tube((14, 20 + k), (34, 14 + 2 * k), (56, 10 + 4 * k), (76, 8 + 6 * k), 1.7, 0.8), hair, 0)
                           for k in (-3, 1, 5)))  # fmt: skip


def _tiger_head(coat: Coat, marked: bool, rng: np.random.Generator) -> list[Part]:
    base, pale, dark, iris = coat
    face = _even((0, -44), (26, -42), (46, -20), (58, 12), (44, 34), (22, 46), (0, 50))
    parts = _both((_oval(38, -42, 18, 18), dark, 6), (_oval(37, -39, 11, 12), pale, 6)) + [(face, base, 14)]
    parts += _both((_closed((57, 12), (44, 35), (22, 45), (22, 22), (40, 14)), pale, 6), (_oval(20, -18, 13, 8), pale, 4))
    parts += _bands(face, dark, rng, 4, 30)
    for y, wide in ((-38, 13), (-30, 19), (-22, 12)):
        parts += _both((_tube((1, y), (wide * 0.4, y + 3), (wide * 0.8, y), (wide, y - 4), 5, 1), dark, 3))
    parts += [(_closed((-9, -16), (9, -16), (13, 14), (-13, 14)), base, 8)]
    parts += _both((_oval(13, 26, 17, 13), pale, 9)) + [(_oval(0, 40, 13, 8), pale, 6)] + _eyes(22, -5, 9, iris, 0.4)
    parts += [(_closed((-12, 10), (0, 8), (12, 10), (0, 21)), (214, 120, 112), 0)]
    parts += _both((_tube((0, 20), (1, 29), (9, 34), (18, 29), 2.6, 1.6), dark, 0))
    parts += _both(*((_oval(x, y, 1.3, 1.3), dark, 0) for x, y in ((14, 23), (19, 27), (22, 22))))
    return parts + _both(*((_tube((18, 25 + k), (36, 21 + 2 * k), (56, 20 + 3 * k), (70, 22 + 4 * k), 1.6, 0.8), WHITE, 0)
                           for k in (-2, 2, 6)))  # fmt: skip


def _dog_head(coat: Coat, marked: bool, rng: np.random.Generator) -> list[Part]:
    base, pale, dark, iris = coat
    drop = int(rng.integers(14, 44))
    face = _even((0, -46), (28, -42), (42, -16), (38, 12), (24, 40), (0, 48))
    ear = _closed((24, -44), (46, -44), (62, -10), (62, drop), (50, drop + 12), (40, drop - 4), (38, -14))
    parts = [(face, base, 14)]
    if marked:
        parts += [(_even((0, -44), (9, -30), (7, 0), (12, 20), (0, 24)), pale, 4), (_oval(20, -10, 15, 18, 10), dark, 6)]
    if rng.integers(3):
        parts += [(_even((0, 40), (11, 44), (12, 60), (0, 70 + drop // 6)), (232, 104, 118), 6),
                  (_tube((0, 44), (0, 50), (0, 56), (0, 64), 1.6, 0.6), (186, 70, 88), 0)]  # fmt: skip
    parts += [(_even((0, 2), (18, 6), (29, 26), (20, 42), (0, 46)), pale, 12)]
    parts += _both((ear, dark, 10)) + _eyes(18, -10, 8.5, iris, 0.55)
    parts += _both((_tube((0, 22), (0, 34), (10, 40), (22, 32), 2.4, 1.6), BLACK, 0), (_oval(19, -25, 7, 2.6, 12), _tone(base, 112), 2))
    return parts + [(_closed((-13, 10), (0, 6), (13, 10), (7, 21), (-7, 21)), BLACK, 0), (_oval(-3, 11, 4.5, 2), (120, 114, 118), 0)]


def _elephant_head(coat: Coat, marked: bool, rng: np.random.Generator) -> list[Part]:
    base, pale, dark, iris = coat
    spread, sway = int(rng.integers(88, 112)), int(rng.integers(-40, 41))
    ear = _closed((24, -44), (58, -58), (spread, -42), (spread + 4, 4), (spread - 24, 46), (46, 38), (28, 14))
    inner = _closed((34, -34), (58, -46), (spread - 12, -32), (spread - 9, 2), (spread - 30, 32), (48, 26), (36, 6))
    face = _even((0, -56), (26, -50), (42, -22), (38, 8), (26, 30), (0, 40))
    trunk = _tube((0, -6), (0, 50), (-sway, 90), (sway, 112), 38, 17)
    tusk = _tube((22, 22), (26, 48), (34, 62), (52, 62), 12, 3)
    parts = _both((ear, base, 12), (inner, _vary(pale, rng, 8), 8)) + [(face, base, 16)]
    parts += _both((_oval(17, -38, 17, 14), _tone(base, 104), 6), (tusk, IVORY, 4)) + [(trunk, base, 14)]
    parts += _wrinkles(trunk, dark)
    return parts + _eyes(27, -6, 5.5, iris, 0.5) + _both((_tube((18, -12), (24, -17), (30, -15), (35, -8), 2, 1), dark, 0))


def _wrinkles(trunk: np.ndarray, dark: Colour) -> list[Part]:
    """Thin lines across a tube."""
    inset = trunk + (trunk[::-1] - trunk) * 0.12
    return [(np.array([inset[i], inset[-1 - i], inset[-1 - i] * 0.9 + inset[-2 - i] * 0.1]), dark, 2) for i in range(5, 16)]


def _legs(xs: tuple[int, ...], top: int, wide: int, coat: Coat, bands: bool, rng: np.random.Generator) -> list[Part]:
    base, pale, dark, _ = coat
    parts = []
    for x in xs:
        knee, foot = x + int(rng.integers(-5, 6)), x + int(rng.integers(-7, 8))
        leg = _tube((x, top), (x, top * 0.6), (knee, top * 0.4), (foot, -4), wide * 1.5, wide)
        parts += [(leg, base, 10)] + (_bands(leg, dark, rng, 4, 60) if bands else [])
        parts += [(_oval(foot + 3, -5, wide * 0.75, 7), pale, 6)]
    return parts


def _sitting(coat: Coat, bands: bool, rng: np.random.Generator) -> tuple[list[Part], tuple[int, int]]:
    base, pale, dark, _ = coat
    lean, curl = int(rng.integers(-12, 13)), int(rng.integers(20, 100))
    tail = _tube((36, -10), (86, 0), (104, -curl // 2), (78 + curl // 4, -curl), 15, 7)
    body = _closed((lean, -128), (lean + 26, -116), (40, -72), (52, -26), (38, -2), (-38, -2), (-52, -26), (-40, -72), (lean - 26, -116))
    haunch = _closed((62, -22), (50, -46), (30, -40), (24, -16), (34, -2), (56, -4))
    parts = [(tail, base, 8)] + (_bands(tail, dark, rng, 2, 80) if bands else []) + [(body, base, 14)]
    parts += _bands(body, dark, rng, 4, 32) if bands else []
    parts += [(_even((0, -112), (17, -92), (14, -50), (0, -40)) + (lean // 2, 0), pale, 8)] + _both((haunch, base, 12))
    if bands:
        parts += _bands(haunch, dark, rng, 5, 50)
    return parts + _both((_oval(42, -4, 18, 7), pale, 6)) + _legs((-15, 15), -84, 17, coat, bands, rng), (lean, -150)


def _standing(coat: Coat, bands: bool, rng: np.random.Generator) -> tuple[list[Part], tuple[int, int]]:
    base, pale, dark, _ = coat
    rise, curl = int(rng.integers(-8, 9)), int(rng.integers(-60, 70))
    tail = _tube((-74, -88), (-104, -80), (-112, -90 - curl // 2), (-100 - curl // 4, -94 - curl), 14, 7)
    body = _closed((76, -84), (62, -112), (20, -106), (-30, -106), (-70, -104), (-88, -78), (-72, -50), (-30, -46), (20, -40), (58, -46))
    far: Coat = (_tone(base, 78), _tone(pale, 78), dark, dark)
    parts = _legs((-50, 38), -70, 17, far, bands, rng) + [(tail, base, 8)]
    parts += (_bands(tail, dark, rng, 2, 80) if bands else []) + [(body, base, 16)]
    parts += [(_closed((60, -52), (20, -52), (-34, -56), (-30, -47), (20, -41), (56, -47)), pale, 6)]
    parts += _bands(body, dark, rng, 3, 56) if bands else []
    return parts + _legs((-70, 58), -74, 19, coat, bands, rng), (78, -122 + rise)


def _lying(coat: Coat, bands: bool, rng: np.random.Generator) -> tuple[list[Part], tuple[int, int]]:
    base, pale, dark, _ = coat
    curl = int(rng.integers(-10, 60))
    tail = _tube((-84, -14), (-120, -4), (-126, -20), (-108, -10 - curl), 13, 7)
    body = _closed((72, -40), (58, -78), (16, -70), (-34, -76), (-76, -64), (-98, -28), (-84, -2), (-30, -2), (20, -2), (64, -2))
    thigh = _closed((-34, -20), (-48, -56), (-78, -54), (-92, -22), (-78, -2), (-44, -2))
    parts = [(tail, base, 8)] + (_bands(tail, dark, rng, 2, 80) if bands else []) + [(body, base, 16)]
    parts += (_bands(body, dark, rng, 3, 50) if bands else []) + [(thigh, base, 12)]
    parts += (_bands(thigh, dark, rng, 5, 50) if bands else []) + [(_oval(-40, -6, 26, 8), pale, 6)]
    for x, y in ((70, -12), (46, -8)):
        parts += [(_tube((x - 30, y), (x, y), (x + 20, y), (x + 44, y), 20, 15), base, 8), (_oval(x + 46, y, 13, 9), pale, 6)]
    return parts, (60, -92)


def _elephant_body(coat: Coat, rng: np.random.Generator) -> list[Part]:
    """A whole elephant from the side, its head to the right."""
    base, pale, dark, iris = coat
    far: Coat = (_tone(base, 76), _tone(base, 70), dark, dark)
    body = _closed((56, -90), (50, -142), (10, -152), (-40, -146), (-82, -120), (-88, -70), (-60, -46), (-10, -40), (40, -50))
    head = _closed((40, -120), (58, -156), (84, -158), (102, -132), (98, -100), (80, -86), (52, -90))
    flap, up = int(rng.integers(-12, 13)), int(rng.integers(3)) == 0
    ear = _closed((60, -140), (40, -160), (10 - flap, -150), (0 - flap, -112), (18, -78), (40, -70), (54, -96))
    trunk = (_tube((88, -122), (120, -90), (134, -130), (120, -176), 34, 13) if up
             else _tube((88, -122), (124, -90), (98, -40), (116 + flap, -14), 34, 13))  # fmt: skip
    parts = [(_tube((-84, -112), (-104, -90), (-100, -70), (-106 + flap, -50), 8, 4), base, 4), (_oval(-106 + flap, -46, 5, 9), dark, 3)]
    parts += _legs((-42, 30), -66, 28, far, False, rng) + [(body, base, 18)] + _legs((-66, 50), -76, 32, (base, base, dark, dark), False, rng)
    parts += [(head, base, 14), (trunk, base, 12)] + _wrinkles(trunk, dark)
    parts += [(_tube((88, -98), (100, -78), (116, -76), (130, -90), 10, 3), IVORY, 4), (ear, _tone(base, 94), 12)]
    parts += [(_closed((52, -132), (38, -148), (16 - flap, -140), (10 - flap, -112), (24, -86), (38, -82)), pale, 8)]
    return parts + [(_oval(84, -124, 4.5, 4.5), BLACK, 0), (_oval(83, -125.5, 1.5, 1.5), WHITE, 0)]


HEADS = {"Cat": _cat_head, "Dog": _dog_head, "Elephant": _elephant_head, "Tiger": _tiger_head}


def _animal(kind: str, rng: np.random.Generator) -> tuple[list[Part], bool]:
    """The parts of an animal in pixels of the photograph, and whether it stands on the ground."""
    coat = tuple(_vary(colour, rng, 16) for colour in _pick(rng, COATS[kind]))
    marked = kind == "Tiger" or bool(rng.integers(2))
    head = HEADS[kind](coat, marked, rng)
    flip, tilt = _pick(rng, (1, -1)), int(rng.integers(-5, 6))
    pose = _pick(rng, ("head", "body", "body"))
    if pose == "head":
        wide = 1.15 if kind == "Elephant" else 1.75
        scale, drop = wide * int(rng.integers(85, 130)) / 100, -25 if kind == "Elephant" else 12
        x, y = int(rng.integers(104, 153)), int(rng.integers(116, 149)) + drop
        body = [] if kind == "Elephant" else [(_even((0, 0), (50, 30), (70, 90), (0, 100)), coat[0], 14)]
        if body and marked and kind != "Dog":
            body += _bands(body[0][0], coat[2], rng, 3, 26)
        return _placed(body + head, x, y, scale, tilt * 2, flip), False
    if kind == "Elephant":
        parts, size = _elephant_body(coat, rng), 0.86
    else:
        build = _pick(rng, (_sitting, _standing, _lying) if kind != "Dog" else (_sitting, _standing))
        parts, (x, y) = build(coat, marked and kind != "Dog", rng)
        parts += _placed(head, x, y, 0.92 if build is _sitting else 0.82, int(rng.integers(-12, 13)))
        size = 0.95
    scale = size * int(rng.integers(80, 116)) / 100
    return _placed(parts, int(rng.integers(106, 151)), int(rng.integers(206, 249)), scale, tilt // 2, flip), True


# ---- scenes: uint8 [256, 256, 3]


def _noise(rng: np.random.Generator, cell: int, blur: tuple[int, int]) -> np.ndarray:
    """Soft noise, int32 [256, 256] in -128..127: random cells that many pixels wide, smoothed."""
    cells = rng.integers(0, 256, (SIZE // cell, SIZE // cell), dtype=np.uint8)
    full = cv2.resize(cells, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    return cv2.GaussianBlur(full, blur, 0).astype(np.int32) - 128


def _lit(image: np.ndarray, light: np.ndarray) -> np.ndarray:
    """The image times light / 128, light int32 [256, 256]."""
    return np.clip(image * light[..., None] >> 7, 0, 255).astype(np.uint8, order="C")


def _ramp(top: Colour, bottom: Colour, rows: int) -> np.ndarray:
    t = np.arange(rows)[:, None, None]
    column = np.array(top) + (np.array(bottom) - np.array(top)) * t // max(1, rows - 1)
    return np.broadcast_to(column, (rows, SIZE, 3))


def _fill(image: np.ndarray, outline: np.ndarray, colour: Colour) -> None:
    cv2.fillPoly(image, [np.rint(outline * 16).astype(np.int32)], colour, cv2.LINE_AA, shift=4)


def _ridge(rng: np.random.Generator, y: int, height: int) -> np.ndarray:
    knots = [(x, y - int(rng.integers(height + 1))) for x in range(-40, 320, 40)]
    return np.concatenate([_closed(*knots)[: 8 * (len(knots) - 1)], [(SIZE + 30, SIZE), (-40, SIZE)]])


def _outdoors(name: str, rng: np.random.Generator) -> tuple[np.ndarray, Colour]:
    *colours, tint, ornaments = SCENES[name]
    high, low, hill, far, near = (_vary(colour, rng, 26) for colour in colours)
    horizon = int(rng.integers(90, 186))
    image = np.concatenate([_ramp(high, low, horizon), _ramp(far, near, SIZE - horizon)]).astype(np.uint8, order="C")
    if "clouds" in ornaments:
        cloud = np.clip(_noise(rng, 32, (31, 31)) * 5 - int(rng.integers(0, 160)), 0, 200)[:horizon, :, None]
        image[:horizon] = image[:horizon] + (np.array(WHITE) - image[:horizon]) * cloud // 255
    if "sun" in ornaments:
        x, y, r = int(rng.integers(20, 236)), int(rng.integers(20, horizon)), int(rng.integers(12, 30))
        for k in range(4, -1, -1):
            _fill(image[:horizon], _oval(x, y, r + 9 * k, r + 9 * k), _mixed(low, (255, 240, 200), 100 - 22 * k))
    if "stars" in ornaments:
        for x, y in rng.integers(0, (SIZE, horizon), (40, 2)):
            _fill(image, _oval(x, y, 0.8, 0.8), WHITE)
    if "sea" in ornaments:
        image[horizon - 26 : horizon + 14] = _ramp(_tone(hill, 80), _tone(hill, 125), 40)
    if "hills" in ornaments:
        for k in (0, 1):
            _fill(image, _ridge(rng, horizon + 4 + 10 * k, 56 - 26 * k), _mixed(hill, far, 45 * k))
        _fill(image, _ridge(rng, horizon + 16, 6), far)
        image[horizon + 16 :] = _ramp(far, near, SIZE - horizon - 16)
    for x in rng.integers(-10, SIZE + 10, int(rng.integers(4, 11))):
        x, size = int(x), int(rng.integers(24, 62))
        if "trunks" in ornaments:
            _fill(image, _tube((x, -10), (x, 60), (x + 4, 100), (x, horizon + size // 2), size // 3, size // 2), _mixed(hill, (60, 42, 30), size))
        if "pines" in ornaments:
            for k in range(4):
                y, w = horizon + 10 - size * k // 3, size * (5 - k) // 12
                _fill(image, np.array([(x - w, y), (x + w, y), (x, y - size * 2 // 3)], float), _tone(_mixed(hill, (30, 66, 52), 60), 80 + 8 * k))
        if "acacias" in ornaments and x % 2:
            _fill(image, _tube((x, horizon + 8), (x, horizon - 10), (x + 4, horizon - 20), (x, horizon - size), 5, 3), _tone(hill, 50))
            _fill(image, _oval(x, horizon - size, size * 0.8, size * 0.22), _tone(hill, 55))
    image = cv2.GaussianBlur(image, (5, 5), 0)  # the distance is out of focus
    light = 128 + _noise(rng, 16, (15, 15)) // 6
    if "grass" in ornaments:
        light[horizon + 10 :] += _noise(rng, 1, (1, 9))[horizon + 10 :] // 2
    else:
        light[horizon + 10 :] += _noise(rng, 2, (3, 3))[horizon + 10 :] // 10
    image = _lit(image, light)
    if "flowers" in ornaments:
        petal = _vary((230, 170, 150), rng, 60)
        for x, y in rng.integers((0, horizon + 16), (SIZE, SIZE), (30, 2)):
            _fill(image, _oval(x, y, 2, 1.6), petal)
    if "flakes" in ornaments:
        for x, y in rng.integers(0, SIZE, (60, 2)):
            _fill(image, _oval(x, y, 1.4, 1.4), WHITE)
    return image, tint


def _mixed(first: Colour, second: Colour, percent: int) -> Colour:
    return tuple((a * (100 - percent) + b * percent) // 100 for a, b in zip(first, second, strict=True))


def _indoors(rng: np.random.Generator) -> tuple[np.ndarray, Colour]:
    wall = tuple(int(v) for v in rng.integers(70, 236, 3))
    wood, horizon = _vary((150, 104, 66), rng, 50), int(rng.integers(130, 200))
    image = np.concatenate([_ramp(wall, _tone(wall, 78), horizon), _ramp(wood, _tone(wood, 120), SIZE - horizon)])
    image = image.astype(np.uint8, order="C")
    step = int(rng.integers(18, 50))
    if rng.integers(2):
        for x in range(0, SIZE, step):
            image[:horizon, x : x + step // 2] = image[:horizon, x : x + step // 2] // 10 * 9
    for x in range(-6 * SIZE, 7 * SIZE, 3 * step):  # boards run to a vanishing point
        _fill(image[horizon:], np.array([(128 + (x - 128) // 4, 0), (x, 180), (x + 8, 180), (129 + (x - 128) // 4, 0)], float), _tone(wood, 74))
    image[horizon - 8 : horizon] = _tone(wall, 122)
    x, y, w, h = (int(v) for v in rng.integers((0, 4, 60, 60), (170, 40, 120, 110)))
    view = _pick(rng, ((176, 210, 236), (224, 190, 120), (70, 84, 120), (120, 160, 110)))
    h = min(h, horizon - y - 20)
    image[y : y + h, x : x + w] = _pick(rng, (WHITE, _tone(wood, 70)))
    inside = image[y + 6 : y + h - 6, x + 6 : x + w - 6]
    inside[:] = _ramp(view, _tone(view, 120), len(inside))[:, : inside.shape[1]]
    if rng.integers(2):
        image[y : y + h, x + w // 2 - 2 : x + w // 2 + 3] = WHITE
    rug = _vary((160, 80, 80), rng, 70)
    for k in range(3):
        _fill(image, _oval(128, 238, 120 - 14 * k, 26 - 5 * k), _tone(rug, (100, 130, 90)[k]))
    return _lit(cv2.GaussianBlur(image, (5, 5), 0), 128 + _noise(rng, 64, (63, 63)) // 4 + _noise(rng, 2, (3, 3)) // 24), (128,) * 3


def _studio(rng: np.random.Generator) -> tuple[np.ndarray, Colour]:
    image = np.empty((SIZE, SIZE, 3), np.uint8)
    image[:] = tuple(int(v) for v in rng.integers(50, 236, 3))
    x, y = (int(v) for v in rng.integers(60, 196, 2))
    rows, columns = np.mgrid[:SIZE, :SIZE]
    fall = ((columns - x) ** 2 + (rows - y) ** 2) // int(rng.integers(400, 1200))
    return _lit(image, 164 - np.minimum(fall, 110) + _noise(rng, 32, (31, 31)) // 6), (128,) * 3


# ---- a photograph


def _shaded(image: np.ndarray, parts: list[Part]) -> np.ndarray:
    """The scene with the soft shadow of an animal at its feet."""
    points = np.concatenate([outline for outline, _, _ in parts])
    (left, _), (right, bottom) = points.min(axis=0), points.max(axis=0)
    shadow = np.full((SIZE, SIZE), 128, np.uint8)
    outline = _oval((left + right) / 2, bottom - 3, (right - left) * 0.48, 12)
    cv2.fillPoly(shadow, [np.rint(outline).astype(np.int32)], 62)
    return _lit(image, cv2.GaussianBlur(shadow, (25, 25), 0).astype(np.int32))


def draw_animal(kind: str, rng: np.random.Generator) -> np.ndarray:
    """A drawing of a 'Cat', 'Dog', 'Elephant' or 'Tiger' in some pose and place, uint8 [256, 256, 3] RGB."""
    place = _pick(rng, PLACES[kind])
    image, tint = {"indoors": _indoors, "studio": _studio}.get(place, lambda r: _outdoors(place, r))(rng)
    parts, grounded = _animal(kind, rng)
    if grounded:
        image = _shaded(image, parts)
    canvas = cv2.resize(image, (2 * SIZE, 2 * SIZE), interpolation=cv2.INTER_LINEAR)
    light, coat = np.full((SIZE, SIZE), 128, np.uint8), np.zeros((SIZE, SIZE), np.uint8)
    for outline, colour, relief in parts:
        fixed = [np.rint(outline * 32).astype(np.int32)]  # 1/16 of a canvas pixel, 1/32 of a photograph's
        cv2.fillPoly(canvas, fixed, tuple(v * t >> 7 for v, t in zip(colour, tint, strict=True)), cv2.LINE_AA, shift=4)
        cv2.fillPoly(light, fixed, 128 - relief, shift=5)
        cv2.fillPoly(coat, fixed, 255 if relief else 0, shift=5)
        if relief > 4:
            ridge = outline + (outline[::-1] - outline) * 0.25 - (relief / 8, relief / 4)  # lit from above
            cv2.fillPoly(light, [np.rint(ridge * 32).astype(np.int32)], 128 + relief, shift=5)
    image = cv2.resize(canvas, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    relief = cv2.GaussianBlur(light, (13, 13), 0).astype(np.int32) * 2 - 256
    fur = _noise(rng, 1, (3, 7)) // 3 + _noise(rng, 8, (9, 9)) // 10
    gain = int(rng.integers(104, 150))
    return _lit(image, (128 + (relief + fur) * coat // 255) * gain >> 7)


# ---- a competition


def draw_competition(
    folder: Path, truth: Path, pairs_per_class: int, test_images: int, seed: int
) -> Iterator[Path]:
    """Draws training pairs and test images into `folder`, laid out as the competition's archive is, and the
    whole originals of the test images into `truth`, under the same names. Both folders exist and are empty.
    Yields the path of each photograph written, 4 * pairs_per_class + test_images in all.
    """
    thumbnails: list[np.ndarray] = []
    tests = [(i % len(KINDS), i // len(KINDS)) for i in range(test_images)]  # class, number within the class
    names = [_names(k, pairs_per_class, (test_images + 3 - k) // 4, seed) for k in range(len(KINDS))]
    repeats = max((pairs_per_class * TRAIN_TWINS_PER_1000 + 500) // 1000, int(pairs_per_class >= 20))
    fresh = pairs_per_class - repeats
    for k, kind in enumerate(KINDS):
        whole, masked = (folder / "Training_Data" / kind / name for name in ("Unmasked_Train", "Masked_Train"))
        whole.mkdir(parents=True)
        masked.mkdir()
        boxes = _boxes(masked, names[k][:pairs_per_class], np.random.default_rng([seed, 1, k]))
        for i, name in enumerate(names[k][:pairs_per_class]):
            key = [seed, 2, k, i]
            image = _fresh(kind, key, thumbnails) if i < fresh else _twin(whole / names[k][i - fresh], key)
            yield _write(image, name, boxes[name], whole, masked)
    masked = folder / "Testing_Data"
    masked.mkdir()
    test_names = [names[k][pairs_per_class + i] for k, i in tests]
    boxes = _boxes(masked, test_names, np.random.default_rng([seed, 1, len(KINDS)]))
    twins = (test_images * TWINS_PER_1000 + 500) // 1000 if pairs_per_class else 0
    for n, ((k, i), name) in enumerate(zip(tests, test_names, strict=True)):
        key = [seed, 3, k, i]
        if n < twins:  # from the last fresh drawing backwards: the training set's own twins repeat the first
            source = folder / "Training_Data" / KINDS[k] / "Unmasked_Train" / names[k][(fresh - 1 - i) % fresh]
            image = _twin(source, key)
        else:
            image = _fresh(KINDS[k], key, thumbnails)
        _write(image, name, boxes[name], truth, masked)
        yield masked / name


def _names(k: int, train: int, test: int, seed: int) -> list[str]:
    """File names of a class, training first: numbers with gaps, and two files that differ in their suffix."""
    rng = np.random.default_rng([seed, 0, k])
    numbers = rng.permutation(np.arange(1, 2 * (train + test) + 1))[: train + test].tolist()
    suffixes = [(".png", *[".jpg"] * 8, *[".jpeg"] * 191)[i] for i in rng.integers(0, 200, train + test)]
    if train > 2:
        numbers[1], suffixes[:3] = numbers[0], (".jpeg", ".jpg", ".png")
    stem = KINDS[k] if KINDS[k] == "Tiger" else f"{KINDS[k]}-Train"
    return [f"{stem} ({number}){suffix}" for number, suffix in zip(numbers, suffixes, strict=True)]


def _boxes(folder: Path, names: list[str], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draws two boxes a photograph and writes masked_info.csv, its rows in no order, some boxes overlapping."""
    boxes = rng.integers(0, SIZE - BOX, (len(names), 2, 2))  # [photograph, box, (row, column)]
    while len(boxes) and not (np.abs(boxes[:, 0] - boxes[:, 1]) < BOX).all(axis=1).any():
        boxes[0] = rng.integers(0, SIZE - BOX, (2, 2))
    order = rng.permutation(len(names))
    rows = [(names[i], *boxes[i].ravel()) for i in order]
    pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / "masked_info.csv", lineterminator="\n")
    return dict(zip(names, boxes, strict=True))


def _write(image: np.ndarray, name: str, boxes: np.ndarray, whole: Path, masked: Path) -> Path:
    """Writes a photograph, and masked what is read back from that file."""
    suffix = Path(name).suffix
    (whole / name).write_bytes(encode_image(image, suffix))
    image = decode_image((whole / name).read_bytes(), name)
    for row, column in boxes:
        image[row : row + BOX, column : column + BOX] = 0
    (masked / name).write_bytes(encode_image(image, suffix))
    return whole / name


def _thumbnail(image: np.ndarray, size: int = 32) -> np.ndarray:
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA).astype(np.int32)


def _fresh(kind: str, key: list[int], thumbnails: list[np.ndarray]) -> np.ndarray:
    """A drawing unlike every one whose thumbnail is there already; adds its own."""
    near = int((APART * 255) ** 2 * 8 * 8 * 3)  # at 8 x 8 two images are never further apart than at 32 x 32
    for attempt in range(1000):
        image = draw_animal(kind, np.random.default_rng([*key, attempt]))
        thumbnail = _thumbnail(image, 8)
        if not thumbnails or ((np.stack(thumbnails) - thumbnail) ** 2).sum(axis=(1, 2, 3)).min() > near:
            break
    thumbnails.append(thumbnail)
    return image


def _twin(source: Path, key: list[int]) -> np.ndarray:
    """The photograph in a file as another site has it: cropped, brightened and compressed a little otherwise."""
    rng = np.random.default_rng(key)
    image = decode_image(source.read_bytes(), source.name)
    grey, quality = int(rng.integers(-1, 2)), int(rng.integers(80, 91))
    for widest in (2, 1, 0):  # less, where the drawing has much detail
        top, bottom, left, right = (int(v) for v in rng.integers(0, widest + 1, 4))
        part = image[top : SIZE - bottom, left : SIZE - right]
        twin = cv2.resize(part, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR_EXACT).astype(np.int32) + grey
        data = cv2.imencode(".jpeg", np.clip(twin, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        twin = cv2.imdecode(data, cv2.IMREAD_COLOR)
        if ((_thumbnail(twin) - _thumbnail(image)) ** 2).mean() < (TWIN * 0.9 * 255) ** 2:
            break
    return twin
