"""Draws cats, dogs, elephants and tigers, each in its own pose, coat and scene.

An animal is a list of parts in its own coordinates (y down, a head about 100 units wide), painted in order onto a
scene. The same seed gives the same bytes: random numbers are integers, every coordinate is rounded before it is drawn,
and all arithmetic on pixels is in integers.
"""

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from pipeline.competition.images import SIZE

CLASSES = ("Cat", "Dog", "Elephant", "Tiger")

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
# A scene: upper and lower sky, hills, far and near ground, light on the animal (128: neutral), ornaments
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


def _bands(outline: np.ndarray, dark: Colour, rng: np.random.Generator, step: int, depth: int) -> list[Part]:
    """Tapered stripes from both edges of an outline, at most `depth` percent of the way to the other edge."""
    found = []
    for n, i in enumerate(range(3, len(outline) // 2 - 2, step)):
        i = i if n % 3 else len(outline) - 1 - i
        near, far = outline[i], outline[-1 - i]
        width = (outline[i - 1] - outline[i + 1]) * int(rng.integers(40, 75)) / 100
        tip = near + (far - near) * int(rng.integers(depth * 6 // 10, depth + 1)) / 100
        middle = (near + tip) / 2 + width * int(rng.integers(-60, 61)) / 100
        stripe = _closed(near + width, middle + width * 0.7, tip, middle - width * 0.7, near - width)
        found.append((stripe, dark, 3))
    return found


# ---- colours


def _tone(colour: Colour, percent: int) -> Colour:
    return tuple(min(255, v * percent // 100) for v in colour)


def _mixed(first: Colour, second: Colour, percent: int) -> Colour:
    return tuple((a * (100 - percent) + b * percent) // 100 for a, b in zip(first, second, strict=True))


def _vary(colour: Colour, rng: np.random.Generator, amount: int) -> Colour:
    shift = int(rng.integers(-amount, amount + 1)) + rng.integers(-amount // 2, amount // 2 + 1, 3)
    return tuple(int(v) for v in np.clip(np.array(colour) + shift, 0, 255))


def _pick(rng: np.random.Generator, choices: Sequence[Any]) -> Any:
    return choices[int(rng.integers(len(choices)))]


# ---- animals


def _both(*parts: Part) -> list[Part]:
    """Each part and its mirror image."""
    return [(p * flip, colour, relief) for p, colour, relief in parts for flip in ((1, 1), (-1, 1))]


def _placed(parts: list[Part], x: int, y: int, scale: float, tilt: int, flip: int = 1) -> list[Part]:
    return [(_turn(p * scale, tilt) * (flip, 1) + (x, y), colour, relief) for p, colour, relief in parts]


def _eyes(x: float, y: float, size: float, iris: Colour, pupil: float) -> list[Part]:
    balls = _both(
        (_oval(x, y, size, size * 0.95, 8), BLACK, 0),
        (_oval(x, y, size * 0.86, size * 0.82), iris, 0),
        (_oval(x, y, size * pupil, size * 0.7), BLACK, 0),
    )
    glints = [_oval(at - size * 0.25, y - size * 0.35, size * 0.24, size * 0.24) for at in (-x, x)]
    return balls + [(glint, WHITE, 0) for glint in glints]


def _whiskers(x: float, y: float, colour: Colour) -> list[Part]:
    rows = ((y + k, y - 6 + 2 * k, y - 9 + 3 * k, y - 9 + 5 * k) for k in (-3, 1, 5))
    hairs = (_tube((x, a), (x + 19, b), (x + 40, c), (x + 58, d), 1.7, 0.8) for a, b, c, d in rows)
    return _both(*((hair, colour, 0) for hair in hairs))


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
    parts += [(_closed((-7, 9), (0, 7), (7, 9), (0, 17)), PINK, 0)]
    parts += _both((_tube((0, 16), (1, 24), (8, 28), (15, 24), 2, 1.4), _tone(dark, 60), 0))
    return parts + _whiskers(14, 20, WHITE if sum(base) < 560 else (120, 112, 108))


def _tiger_head(coat: Coat, marked: bool, rng: np.random.Generator) -> list[Part]:
    base, pale, dark, iris = coat
    face = _even((0, -46), (28, -43), (48, -20), (58, 12), (44, 34), (22, 46), (0, 50))
    cheek = _closed((57, 12), (44, 35), (22, 45), (22, 22), (40, 14))
    parts = _both((_oval(38, -42, 18, 18), dark, 6), (_oval(37, -39, 11, 12), pale, 6)) + [(face, base, 14)]
    parts += _both((cheek, pale, 6), (_oval(20, -18, 13, 8), pale, 4)) + _bands(face, dark, rng, 4, 30)
    for y, wide in ((-38, 13), (-30, 19), (-22, 12)):
        parts += _both((_tube((1, y), (wide * 0.4, y + 3), (wide * 0.8, y), (wide, y - 4), 5, 1), dark, 3))
    parts += [(_closed((-9, -16), (9, -16), (13, 14), (-13, 14)), base, 8)]
    parts += _both((_oval(13, 26, 17, 13), pale, 9)) + [(_oval(0, 40, 13, 8), pale, 6)]
    nose = _closed((-12, 10), (0, 8), (12, 10), (0, 21))
    parts += _eyes(22, -5, 9, iris, 0.4) + [(nose, (214, 120, 112), 0)]
    parts += _both((_tube((0, 20), (1, 29), (9, 34), (18, 29), 2.6, 1.6), dark, 0))
    parts += _both(*((_oval(x, y, 1.3, 1.3), dark, 0) for x, y in ((14, 23), (19, 27), (22, 22))))
    return parts + _whiskers(18, 26, WHITE)


def _dog_head(coat: Coat, marked: bool, rng: np.random.Generator) -> list[Part]:
    base, pale, dark, iris = coat
    drop = int(rng.integers(14, 44))
    face = _even((0, -56), (20, -52), (37, -34), (42, -8), (36, 16), (22, 40), (0, 48))
    ear = _closed((22, -48), (44, -46), (60, -12), (62, drop), (50, drop + 12), (40, drop - 4), (37, -16))
    parts = [(face, base, 14)]
    if marked:
        blaze = _even((0, -55), (8, -34), (6, 0), (12, 20), (0, 24))
        parts += [(blaze, pale, 4), (_oval(20, -10, 15, 18, 10), dark, 6)]
    if rng.integers(3):
        tongue = _even((0, 40), (11, 44), (12, 60), (0, 70 + drop // 6))
        parts += [(tongue, (232, 104, 118), 6), (_oval(0, 54, 0.8, 9), (186, 70, 88), 0)]
    parts += [(_even((0, 2), (18, 6), (29, 26), (20, 42), (0, 46)), pale, 12)]
    parts += _both((ear, dark, 10), (_oval(19, -26, 7, 2.6, 12), _tone(base, 114), 2))
    parts += _eyes(18, -10, 8.5, iris, 0.55)
    parts += _both((_tube((0, 22), (0, 34), (10, 40), (22, 32), 2.4, 1.6), BLACK, 0))
    nose = _closed((-13, 10), (0, 6), (13, 10), (7, 21), (-7, 21))
    return parts + [(nose, BLACK, 0), (_oval(-3, 11, 4.5, 2), (120, 114, 118), 0)]


def _elephant_head(coat: Coat, marked: bool, rng: np.random.Generator) -> list[Part]:
    base, pale, dark, iris = coat
    wide, sway = int(rng.integers(88, 112)), int(rng.integers(-40, 41))
    ear = _closed((24, -44), (58, -58), (wide, -42), (wide + 4, 4), (wide - 24, 46), (46, 38), (28, 14))
    inner = _closed((34, -34), (58, -46), (wide - 12, -32), (wide - 9, 2), (wide - 30, 32), (48, 26), (36, 6))
    face = _even((0, -56), (26, -50), (42, -22), (38, 8), (26, 30), (0, 40))
    trunk = _tube((0, -6), (0, 50), (-sway, 90), (sway, 112), 38, 17)
    tusk = _tube((22, 22), (26, 48), (34, 62), (52, 62), 12, 3)
    parts = _both((ear, base, 12), (inner, _vary(pale, rng, 8), 8)) + [(face, base, 16)]
    parts += _both((_oval(17, -38, 17, 14), _tone(base, 104), 6), (tusk, IVORY, 4))
    parts += _trunk(trunk, base, dark)
    brow = _tube((18, -12), (24, -17), (30, -15), (35, -8), 2, 1)
    return parts + _eyes(27, -6, 5.5, iris, 0.5) + _both((brow, dark, 0))


def _trunk(trunk: np.ndarray, base: Colour, dark: Colour) -> list[Part]:
    """A trunk with wrinkles across."""
    a, b = trunk + (trunk[::-1] - trunk) * 0.12, np.roll(trunk, 1, axis=0)
    return [(trunk, base, 13)] + [(np.stack([a[i], a[-1 - i], b[-1 - i]]), dark, 2) for i in range(5, 16)]


def _furry(
    outline: np.ndarray, coat: Coat, relief: int, rng: np.random.Generator, stripes: tuple[int, int] | None
) -> list[Part]:
    """A part of a body, striped in the coat's dark colour if `stripes`, (step, depth) of _bands, is given."""
    return [(outline, coat[0], relief)] + (_bands(outline, coat[2], rng, *stripes) if stripes else [])


def _legs(xs: tuple, top: int, wide: int, coat: Coat, banded: bool, rng: np.random.Generator) -> list[Part]:
    parts = []
    for x in xs:
        knee, foot = x + int(rng.integers(-5, 6)), x + int(rng.integers(-7, 8))
        leg = _tube((x, top), (x, top * 0.6), (knee, top * 0.4), (foot, -4), wide * 1.5, wide)
        parts += _furry(leg, coat, 10, rng, (4, 60) if banded else None)
        parts += [(_oval(foot + 3, -5, wide * 0.75, 7), coat[1], 6)]
    return parts


# Each returns a body that stands on y = 0, and the position of its head.
def _sitting(coat: Coat, banded: bool, rng: np.random.Generator) -> tuple[list[Part], tuple[int, int]]:
    lean, curl = int(rng.integers(-12, 13)), int(rng.integers(20, 100))
    tail = _tube((36, -10), (86, 0), (104, -curl // 2), (78 + curl // 4, -curl), 15, 7)
    body = _even((0, -128), (26, -116), (40, -72), (52, -26), (38, -2), (0, -2))
    body[:, 0] -= body[:, 1] * lean / 128
    chest = _even((0, -116), (22, -94), (21, -56), (0, -40)) + (lean // 2, 0)
    haunch = _closed((62, -22), (50, -46), (30, -40), (24, -16), (34, -2), (56, -4))
    parts = _furry(tail, coat, 8, rng, (2, 80) if banded else None)
    parts += _furry(body, coat, 14, rng, (4, 32) if banded else None) + [(chest, coat[1], 8)]
    parts += _both(*_furry(haunch, coat, 12, rng, (5, 50) if banded else None))
    parts += _both((_oval(42, -4, 18, 7), coat[1], 6))
    return parts + _legs((-15, 15), -84, 17, coat, banded, rng), (lean, -150)


def _standing(coat: Coat, banded: bool, rng: np.random.Generator) -> tuple[list[Part], tuple[int, int]]:
    rise, curl = int(rng.integers(-8, 9)), int(rng.integers(-60, 70))
    tail = _tube((-74, -88), (-104, -80), (-112, -90 - curl // 2), (-100 - curl // 4, -94 - curl), 14, 7)
    back = ((76, -84), (62, -112), (20, -106), (-30, -106), (-70, -104), (-88, -78))
    body = _closed(*back, (-72, -50), (-30, -46), (20, -40), (58, -46))
    belly = _closed((60, -52), (20, -52), (-34, -56), (-30, -47), (20, -41), (56, -47))
    shaded = tuple(_tone(colour, 78) for colour in coat)
    parts = _legs((-50, 38), -70, 17, shaded, banded, rng)
    parts += _furry(tail, coat, 8, rng, (2, 80) if banded else None)
    parts += [(body, coat[0], 16), (belly, coat[1], 6)]
    parts += _bands(body, coat[2], rng, 3, 56) if banded else []
    return parts + _legs((-70, 58), -74, 19, coat, banded, rng), (78, -122 + rise)


def _lying(coat: Coat, banded: bool, rng: np.random.Generator) -> tuple[list[Part], tuple[int, int]]:
    tail = _tube((-84, -14), (-120, -4), (-126, -20), (-108, -int(rng.integers(71))), 13, 7)
    back = ((72, -40), (58, -78), (16, -70), (-34, -76), (-76, -64), (-98, -28))
    body = _closed(*back, (-84, -2), (-30, -2), (20, -2), (64, -2))
    thigh = _closed((-34, -20), (-48, -56), (-78, -54), (-92, -22), (-78, -2), (-44, -2))
    parts = _furry(tail, coat, 8, rng, (2, 80) if banded else None)
    parts += _furry(body, coat, 16, rng, (3, 50) if banded else None)
    parts += _furry(thigh, coat, 12, rng, (5, 50) if banded else None) + [(_oval(-40, -6, 26, 8), coat[1], 6)]
    for x, y in ((70, -12), (46, -8)):
        leg = _tube((x - 30, y), (x, y), (x + 20, y), (x + 44, y), 20, 15)
        parts += [(leg, coat[0], 8), (_oval(x + 46, y, 13, 9), coat[1], 6)]
    return parts, (60, -92)


def _elephant_body(coat: Coat, rng: np.random.Generator) -> list[Part]:
    """An elephant from the side, its head to the right."""
    base, pale, dark, _ = coat
    flap = int(rng.integers(-12, 13))
    back = ((56, -90), (50, -142), (10, -152), (-40, -146), (-82, -120), (-88, -70))
    body = _closed(*back, (-60, -46), (-10, -40), (40, -50))
    head = _closed((40, -120), (58, -156), (84, -158), (102, -132), (98, -100), (80, -86), (52, -90))
    ear = _closed((60, -140), (40, -160), (10 - flap, -150), (-flap, -112), (18, -78), (40, -70), (54, -96))
    inner = _closed((52, -132), (38, -148), (16 - flap, -140), (10 - flap, -112), (24, -86), (38, -82))
    raised, hanging = ((120, -90), (134, -130), (120, -176)), ((124, -90), (98, -40), (116 + flap, -14))
    trunk = _tube((88, -122), *_pick(rng, (raised, hanging, hanging)), 34, 13)
    tail = _tube((-84, -112), (-104, -90), (-100, -70), (-106 + flap, -50), 8, 4)
    parts = [(tail, base, 4), (_oval(-106 + flap, -46, 5, 9), dark, 3)]
    parts += _legs((-42, 30), -66, 28, (_tone(base, 76),) * 4, False, rng) + [(body, base, 18)]
    parts += _legs((-66, 50), -76, 32, (base,) * 4, False, rng) + [(head, base, 14)]
    parts += _trunk(trunk, base, dark)
    tusk = _tube((88, -98), (100, -78), (116, -76), (130, -90), 10, 3)
    parts += [(tusk, IVORY, 4), (ear, _tone(base, 94), 12), (inner, pale, 8)]
    return parts + [(_oval(84, -124, 4.5, 4.5), BLACK, 0), (_oval(83, -125.5, 1.5, 1.5), WHITE, 0)]


HEADS = {"Cat": _cat_head, "Dog": _dog_head, "Elephant": _elephant_head, "Tiger": _tiger_head}


def _animal(class_name: str, rng: np.random.Generator) -> tuple[list[Part], bool]:
    """The parts of an animal in pixels of the photograph, and whether it stands on the ground."""
    coat = tuple(_vary(colour, rng, 16) for colour in _pick(rng, COATS[class_name]))
    marked = class_name == "Tiger" or bool(rng.integers(2))
    banded = marked and class_name in ("Cat", "Tiger")
    head = HEADS[class_name](coat, marked, rng)
    flip, tilt, size = _pick(rng, (1, -1)), int(rng.integers(-5, 6)), int(rng.integers(80, 116))
    if rng.integers(3) == 0:  # a close-up of the head and the top of the chest
        x, y = int(rng.integers(104, 153)), int(rng.integers(116, 149))
        if class_name == "Elephant":
            return _placed(head, x, y - 25, size * 0.0125, tilt * 2, flip), False
        chest = _even((0, 0), (50, 30), (70, 90), (0, 100))
        chest = _furry(chest, coat, 14, rng, (3, 26) if banded else None)
        return _placed(chest + head, x, y + 12, size * 0.019, tilt * 2, flip), False
    if class_name == "Elephant":
        parts = _placed(_elephant_body(coat, rng), 0, 0, 0.9, 0)
    else:
        build = _pick(rng, (_sitting, _standing, _lying)[: 2 if class_name == "Dog" else 3])
        parts, (x, y) = build(coat, banded, rng)
        parts += _placed(head, x, y, 0.92 if build is _sitting else 0.82, int(rng.integers(-12, 13)))
    x, y = int(rng.integers(106, 151)), int(rng.integers(206, 249))
    return _placed(parts, x, y, size * 0.0098, tilt // 2, flip), True


# ---- scenes: uint8 [256, 256, 3]


def _noise(rng: np.random.Generator, cell: int, blur: tuple[int, int]) -> np.ndarray:
    """Soft noise, int32 [256, 256] in -128..127: random cells, `cell` pixels wide, smoothed."""
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


def _fixed(outline: np.ndarray, bits: int) -> list[np.ndarray]:
    """An outline for OpenCV's drawing functions, in units of 2**-bits of a pixel."""
    return [np.rint(outline * (1 << bits)).astype(np.int32)]


def _fill(image: np.ndarray, outline: np.ndarray, colour: Colour) -> None:
    cv2.fillPoly(image, _fixed(outline, 4), colour, cv2.LINE_AA, shift=4)


def _dots(
    image: np.ndarray, count: int, rows: tuple[int, int], r: float, colour: Colour, rng: np.random.Generator
) -> None:
    for x, y in rng.integers((0, rows[0]), (SIZE, rows[1]), (count, 2)):
        _fill(image, _oval(x, y, r, r * 0.9), colour)


def _ridge(rng: np.random.Generator, y: int, height: int) -> np.ndarray:
    knots = [(x, y - int(rng.integers(height + 1))) for x in range(-40, 320, 40)]
    return np.concatenate([_closed(*knots)[: 8 * (len(knots) - 1)], [(SIZE + 30, SIZE), (-40, SIZE)]])


def _tree(image: np.ndarray, x: int, foot: int, size: int, hill: Colour, ornaments: str) -> None:
    if "trunks" in ornaments:
        trunk = _tube((x, -10), (x, 60), (x + 4, 100), (x, foot + size // 2), size // 3, size // 2)
        _fill(image, trunk, _mixed(hill, (60, 42, 30), size))
    if "pines" in ornaments:
        for k in range(4):
            y, half = foot + 10 - size * k // 3, size * (5 - k) // 12
            branches = np.array([(x - half, y), (x + half, y), (x, y - size * 2 // 3)])
            _fill(image, branches, _tone(_mixed(hill, (30, 66, 52), 60), 80 + 8 * k))
    if "acacias" in ornaments and x % 2:
        stem = _tube((x, foot + 8), (x, foot - 10), (x + 4, foot - 20), (x, foot - size), 5, 3)
        _fill(image, stem, _tone(hill, 50))
        _fill(image, _oval(x, foot - size, size * 0.8, size * 0.22), _tone(hill, 55))


def _outdoors(name: str, rng: np.random.Generator) -> tuple[np.ndarray, Colour]:
    *colours, tint, ornaments = SCENES[name]
    high, low, hill, far, near = (_vary(colour, rng, 26) for colour in colours)
    horizon = int(rng.integers(90, 186))
    image = np.concatenate([_ramp(high, low, horizon), _ramp(far, near, SIZE - horizon)])
    image = image.astype(np.uint8, order="C")
    if "clouds" in ornaments:
        cloud = _noise(rng, 16, (61, 25)) * 7 - int(rng.integers(-40, 120))
        cloud = np.clip(cloud, 0, 210)[:horizon, :, None]
        image[:horizon] = image[:horizon] + (np.array(WHITE) - image[:horizon]) * cloud // 255
    if "sun" in ornaments:
        x, y, r = (int(v) for v in rng.integers((20, 20, 12), (236, horizon, 30)))
        glow = np.zeros((SIZE, SIZE), np.uint8)
        cv2.circle(glow, (x, y), 2 * r, 190, -1)
        glow = cv2.GaussianBlur(glow, (81, 81), 0).astype(np.int32)[..., None]
        image = (image + ((255, 226, 170) - image.astype(np.int32)) * glow // 255).astype(np.uint8)
        _fill(image[:horizon], _oval(x, y, r, r), (255, 244, 214))
    if "stars" in ornaments:
        _dots(image, 40, (0, horizon), 0.8, WHITE, rng)
    if "sea" in ornaments:
        image[horizon - 26 : horizon + 14] = _ramp(_tone(hill, 80), _tone(hill, 125), 40)
    if "hills" in ornaments:
        for k in (0, 1):
            _fill(image, _ridge(rng, horizon + 4 + 10 * k, 56 - 26 * k), _mixed(hill, far, 45 * k))
        _fill(image, _ridge(rng, horizon + 16, 6), far)
        image[horizon + 16 :] = _ramp(far, near, SIZE - horizon - 16)
    for x in rng.integers(-10, SIZE + 10, int(rng.integers(4, 11))):
        _tree(image, int(x), horizon, int(rng.integers(24, 62)), hill, ornaments)
    image = cv2.GaussianBlur(image, (5, 5), 0)  # the distance is out of focus
    light = 128 + _noise(rng, 16, (15, 15)) // 6
    ground = _noise(rng, 1, (1, 9)) // 2 if "grass" in ornaments else _noise(rng, 2, (3, 3)) // 10
    light[horizon + 10 :] += ground[horizon + 10 :]
    image = _lit(image, light)
    if "flowers" in ornaments:
        _dots(image, 30, (horizon + 16, SIZE), 2, _vary((230, 170, 150), rng, 60), rng)
    if "flakes" in ornaments:
        _dots(image, 60, (0, SIZE), 1.4, WHITE, rng)
    return image, tint


def _indoors(rng: np.random.Generator) -> tuple[np.ndarray, Colour]:
    wall = tuple(int(v) for v in rng.integers(70, 220, 3))
    wood, rug = _vary((150, 104, 66), rng, 50), _vary((160, 80, 80), rng, 70)
    horizon = int(rng.integers(130, 200))
    floor = _ramp(wood, _tone(wood, 120), SIZE - horizon)
    image = np.concatenate([_ramp(wall, _tone(wall, 78), horizon), floor]).astype(np.uint8, order="C")
    if rng.integers(2):  # striped wallpaper
        step = int(rng.integers(18, 50))
        image[:horizon, np.arange(SIZE) % step < step // 2] //= 8
        image[:horizon, np.arange(SIZE) % step < step // 2] *= 7
    for x in range(-6 * SIZE, 7 * SIZE, 100):  # boards run to a vanishing point
        top = 128 + (x - 128) // 4
        _fill(image[horizon:], np.array([(top, 0), (x, 180), (x + 8, 180), (top + 1, 0)]), _tone(wood, 74))
    image[horizon - 8 : horizon] = _tone(wall, 122)
    x, y, w, h = (int(v) for v in rng.integers((0, 4, 60, 60), (170, 40, 120, 110)))  # a window or a picture
    h = min(h, horizon - y - 20)
    image[y : y + h, x : x + w] = _pick(rng, (WHITE, _tone(wood, 70)))
    view, inside = _vary((150, 170, 170), rng, 70), image[y + 6 : y + h - 6, x + 6 : x + w - 6]
    inside[:] = _ramp(view, _tone(view, 120), h - 12)[:, : inside.shape[1]]
    if rng.integers(2):
        image[y : y + h, x + w // 2 - 2 : x + w // 2 + 3] = image[y, x]
    for k in range(3):
        _fill(image, _oval(128, 238, 120 - 14 * k, 26 - 5 * k), _tone(rug, (100, 130, 90)[k]))
    light = 128 + _noise(rng, 64, (63, 63)) // 4 + _noise(rng, 2, (3, 3)) // 24
    return _lit(cv2.GaussianBlur(image, (5, 5), 0), light), (128, 128, 128)


def _studio(rng: np.random.Generator) -> tuple[np.ndarray, Colour]:
    image = np.broadcast_to(rng.integers(50, 226, 3), (SIZE, SIZE, 3))
    x, y = (int(v) for v in rng.integers(60, 196, 2))
    rows, columns = np.mgrid[:SIZE, :SIZE]
    fall = ((columns - x) ** 2 + (rows - y) ** 2) // int(rng.integers(400, 1200))
    return _lit(image, 156 - np.minimum(fall, 110) + _noise(rng, 32, (31, 31)) // 8), (128, 128, 128)


# ---- a photograph


def draw_animal(class_name: str, rng: np.random.Generator) -> np.ndarray:
    """Draw a 'Cat', 'Dog', 'Elephant' or 'Tiger' in a random pose and place: uint8 [256, 256, 3] RGB."""
    place = _pick(rng, PLACES[class_name])
    rooms = {"indoors": _indoors, "studio": _studio}
    image, tint = rooms[place](rng) if place in rooms else _outdoors(place, rng)
    parts, grounded = _animal(class_name, rng)
    if grounded:
        image = _shaded(image, parts)
    canvas = cv2.resize(image, (2 * SIZE, 2 * SIZE), interpolation=cv2.INTER_LINEAR)
    light, coat = np.full((SIZE, SIZE), 128, np.uint8), np.zeros((SIZE, SIZE), np.uint8)
    for outline, colour, relief in parts:
        _fill(canvas, outline * 2, tuple(v * t >> 7 for v, t in zip(colour, tint, strict=True)))
        cv2.fillPoly(light, _fixed(outline, 5), 128 - relief, shift=5)
        cv2.fillPoly(coat, _fixed(outline, 5), 255 if relief else 0, shift=5)
        if relief > 4:  # lit from above: a lighter middle, blurred below
            middle = outline + (outline[::-1] - outline) * 0.25 - (relief / 8, relief / 4)
            cv2.fillPoly(light, _fixed(middle, 5), 128 + relief, shift=5)
    image = cv2.resize(canvas, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    shape = cv2.GaussianBlur(light, (13, 13), 0).astype(np.int32) * 2 - 256
    fur = _noise(rng, 1, (3, 7)) // 4 + _noise(rng, 8, (9, 9)) // 16
    gain = int(rng.integers(104, 144))
    return _lit(image, (128 + (shape + fur) * coat // 255) * gain >> 7)


def _shaded(image: np.ndarray, parts: list[Part]) -> np.ndarray:
    """The scene with the soft shadow of an animal at its feet."""
    points = np.concatenate([outline for outline, _, _ in parts])
    (left, _), (right, bottom) = points.min(axis=0), points.max(axis=0)
    shadow = np.full((SIZE, SIZE), 128, np.uint8)
    feet = _oval((left + right) / 2, bottom - 3, (right - left) * 0.48, 12)
    cv2.fillPoly(shadow, _fixed(feet, 4), 62, shift=4)
    return _lit(image, cv2.GaussianBlur(shadow, (25, 25), 0).astype(np.int32))
