"""Photographs as arrays: uint8 [256, 256, 3], RGB."""

import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from pipeline.base.errors import BadInput

SIZE = 256  # pixels, height and width of every photograph
FORMATS = ("JPEG", "PNG")  # and no other: some of Pillow's readers start programs
SUFFIXES = (".jpeg", ".jpg", ".png")
JPEG_QUALITY = 95  # OpenCV's default, and what the competition's own files were written with

Image.MAX_IMAGE_PIXELS = None  # decode_image checks the size before it reads a pixel


def to_uint8(levels: np.ndarray) -> np.ndarray:
    """Grey levels of any float type as uint8: rounded, halves to even, and what is out of range put at 0 or 255."""
    return np.clip(np.round(levels), 0, 255).astype(np.uint8)


def decode_image(data: bytes, name: str) -> np.ndarray:
    """An encoded photograph as uint8 [256, 256, 3] RGB. Raises BadInput calling it `name`.

    Pillow gives the very pixels that cv2.imread gives for the competition's files, and unlike it refuses a
    truncated JPEG and tells the size before it reads a pixel: a header may claim any number of them.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.size != (SIZE, SIZE):
                raise BadInput(f"{name} is {image.width} x {image.height} pixels, expected {SIZE} x {SIZE}")
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise BadInput(f"{name} does not decode as an image ({error})") from None


def encode_image(image: np.ndarray, suffix: str) -> bytes:
    """uint8 RGB as the bytes of a file of that kind: '.jpeg', '.jpg' (quality 95) or '.png' (lossless)."""
    options = [] if suffix.lower() == ".png" else [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1].tobytes()


def read_image(path: Path) -> np.ndarray:
    """The photograph in a file, uint8 [256, 256, 3] RGB. Raises BadInput naming the file and its fault."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"{path} is missing") from None
    return decode_image(data, str(path))


def read_images(paths: Iterable[Path]) -> np.ndarray:
    """Photographs as uint8 [n, 256, 256, 3] RGB, decoded on all cores."""
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(read_image, paths))
    return np.stack(images) if images else np.empty((0, SIZE, SIZE, 3), np.uint8)
