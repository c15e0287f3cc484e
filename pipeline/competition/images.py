"""Photographs as arrays: uint8 [256, 256, 3], RGB."""

import io
import re
import struct
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from pipeline.base.errors import BadInput

SIZE = 256  # pixels, height and width of every photograph
STARTS = {"JPEG": b"\xff\xd8\xff", "PNG": b"\x89PNG\r\n\x1a\n"}  # no others: some of Pillow's readers start programs
SUFFIXES = (".jpeg", ".jpg", ".png")
JPEG_QUALITY = 95  # OpenCV's default; the competition's files have it too
OTHERS = {  # what a file is, by its first bytes
    rb"$": "empty",
    rb"GIF8": "a GIF image",
    rb"BM.{4}\0{4}": "a BMP image",
    rb"II\*\0|MM\0\*": "a TIFF image",
    rb"RIFF....WEBP": "a WebP image",
    rb"....ftypavi[fs]": "an AVIF image",
    rb"....ftyp(hei|hev|mif1|msf1)": "a HEIF image",
    rb"\xff\x0a|\0\0\0\x0cJXL ": "a JPEG XL image",
    rb"\s*<(?i:!doctype\s+html|html|head)": "an HTML page",
    rb"\s*<(\?xml|svg)": "an XML or SVG file",
    rb"%!PS|\xc5\xd0\xd3\xc6": "a PostScript file",
    rb"version https://git-lfs": "a Git LFS pointer to the file",
    rb"[\t\r\n -~]+$": "a text file",
}

# What Pillow raises on damaged bytes, and OpenCV.
DAMAGE = (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, struct.error, cv2.error)

Image.MAX_IMAGE_PIXELS = None  # decode_image checks the size before it reads a pixel
# decode_image says what is wrong with which file. Pillow's warnings and OpenCV's log name none.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def to_uint8(levels: np.ndarray) -> np.ndarray:
    """Convert grey levels of any float type to uint8: rounded, halves to even, and clipped to 0 to 255."""
    return np.clip(np.round(levels), 0, 255).astype(np.uint8)


def decode_image(data: bytes, name: str) -> np.ndarray:
    """Decode a JPEG or PNG to uint8 [256, 256, 3] RGB, the pixels that cv2.imread gives.

    So EXIF orientation turns the image and 16 bits become 8. Raises BadInput, which calls the file `name`, for any
    other format or size, and for a truncated file, of which OpenCV would decode a part.
    """
    if not data.startswith(tuple(STARTS.values())):
        raise BadInput(f"{name} is {content_of(data)}, expected a JPEG or PNG image")
    try:
        with Image.open(io.BytesIO(data), formats=tuple(STARTS)) as image:
            if image.size != (SIZE, SIZE):
                raise BadInput(f"{name} is {image.width} x {image.height} pixels, expected {SIZE} x {SIZE}")
            image.draft(None, (1, 1))  # finds a truncated JPEG without computing all its pixels
            image.load()
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except UnidentifiedImageError:  # its text has an object's address
        raise BadInput(f"{name} does not decode as an image (its header is damaged)") from None
    except DAMAGE as error:
        raise BadInput(f"{name} does not decode as an image ({error})") from None
    if pixels is None or pixels.shape != (SIZE, SIZE, 3):
        raise BadInput(f"{name} does not decode as an image (OpenCV cannot read it)")
    return pixels


def content_of(data: bytes) -> str:
    """What a file that is no JPEG or PNG is, from its first bytes: "a WebP image"."""
    start = data[:256]
    found = (what for pattern, what in OTHERS.items() if re.match(pattern, start, re.DOTALL))
    return next(found, "not an image")


def encode_image(image: np.ndarray, suffix: str) -> bytes:
    """Encode uint8 RGB for a file with this suffix: '.jpeg' or '.jpg' (quality 95), '.png' (lossless)."""
    options = [] if suffix.lower() == ".png" else [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1].tobytes()


def read_image(path: Path, name: str = "") -> np.ndarray:
    """Read a photograph, uint8 [256, 256, 3] RGB. Raises BadInput with the fault and `name`, by default the path."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"{name or path} is missing") from None
    return decode_image(data, name or str(path))


def read_images(paths: Iterable[Path]) -> np.ndarray:
    """Read photographs on all cores: uint8 [n, 256, 256, 3] RGB."""
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(read_image, paths))
    return np.stack(images) if images else np.empty((0, SIZE, SIZE, 3), np.uint8)
