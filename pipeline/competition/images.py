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
FORMATS = ("JPEG", "PNG")  # no others: some of Pillow's readers start programs
SUFFIXES = (".jpeg", ".jpg", ".png")
JPEG_QUALITY = 95  # OpenCV's default; the competition's files have it too

Image.MAX_IMAGE_PIXELS = None  # decode_image checks the size before it reads a pixel


def to_uint8(levels: np.ndarray) -> np.ndarray:
    """Convert grey levels of any float type to uint8: rounded, halves to even, and clipped to 0 to 255."""
    return np.clip(np.round(levels), 0, 255).astype(np.uint8)


def decode_image(data: bytes, name: str) -> np.ndarray:
    """Decode a JPEG or PNG to uint8 [256, 256, 3] RGB. Raises BadInput, which calls it `name`.

    For the competition's files Pillow's pixels equal cv2.imread's. Unlike OpenCV it refuses a truncated JPEG, and it
    tells the size before it reads a pixel: a header may claim any size.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.size != (SIZE, SIZE):
                raise BadInput(f"{name} is {image.width} x {image.height} pixels, expected {SIZE} x {SIZE}")
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise BadInput(f"{name} does not decode as an image ({error})") from None


def encode_image(image: np.ndarray, suffix: str) -> bytes:
    """Encode uint8 RGB for a file with this suffix: '.jpeg' or '.jpg' (quality 95), '.png' (lossless)."""
    options = [] if suffix.lower() == ".png" else [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1].tobytes()


def read_image(path: Path) -> np.ndarray:
    """Read a photograph, uint8 [256, 256, 3] RGB. Raises BadInput naming the file and the fault."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"{path} is missing") from None
    return decode_image(data, str(path))


def read_images(paths: Iterable[Path]) -> np.ndarray:
    """Read photographs on all cores: uint8 [n, 256, 256, 3] RGB."""
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(read_image, paths))
    return np.stack(images) if images else np.empty((0, SIZE, SIZE, 3), np.uint8)
