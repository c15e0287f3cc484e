"""Photographs: which files decode; all others are refused by name."""

import io
import os
import struct
import subprocess
import sys
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from pipeline.base.errors import BadInput
from pipeline.competition.images import SIZE, SUFFIXES, decode_image, encode_image, read_image, read_images, to_uint8


def photograph(size=SIZE, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def saved(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_header(width, height):
    """A PNG of a hundred bytes that declares this size."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def refusal(data):
    """The message that refuses these bytes as Cat.jpeg: one line, without an object's address."""
    with pytest.raises(BadInput) as caught:
        decode_image(data, "Cat.jpeg")
    message = str(caught.value)
    assert message.startswith("Cat.jpeg ") and "\n" not in message and "object at" not in message
    return message


def test_a_png_is_lossless():
    image = photograph()
    decoded = decode_image(encode_image(image, ".png"), "x.png")
    assert decoded.shape == (SIZE, SIZE, 3) and decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, image)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_pixels_equal_opencvs(suffix):
    data = encode_image(photograph(), suffix)
    theirs = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(decode_image(data, "x"), theirs)


def test_red_is_first():
    red = np.zeros((SIZE, SIZE, 3), np.uint8)
    red[..., 0] = 255
    for suffix in SUFFIXES:
        data = encode_image(red, suffix)
        assert Image.open(io.BytesIO(data)).convert("RGB").getpixel((9, 9))[0] > 250
        mean = decode_image(data, "x").mean(axis=(0, 1))
        assert mean[0] > 250 and mean[1] < 5 and mean[2] < 5


def test_a_jpeg_has_quality_95():
    image = photograph()
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    assert encode_image(image, ".jpeg") == cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


PICTURE = Image.fromarray(photograph())
DEEP = (photograph().astype(np.uint16) << 8) | 0x7F  # 16 bits
GAMMA = PngImagePlugin.PngInfo()
GAMMA.add(b"gAMA", struct.pack(">I", 100_000))
KINDS = {
    **{f"EXIF orientation {n}": saved(PICTURE, "JPEG", exif=turned(n)) for n in range(1, 9)},
    "EXIF orientation 6 in a PNG": saved(PICTURE, "PNG", exif=turned(6)),
    "grey": saved(PICTURE.convert("L"), "JPEG"),
    "CMYK": saved(PICTURE.convert("CMYK"), "JPEG"),
    "progressive": saved(PICTURE, "JPEG", progressive=True),
    "no subsampling": saved(PICTURE, "JPEG", subsampling=0),
    "ICC": saved(PICTURE, "JPEG", icc_profile=b"\0" * 200),
    "trailing bytes": saved(PICTURE, "JPEG") + b"\0" * 1000,
    "MPO": saved(PICTURE, "MPO", save_all=True, append_images=[PICTURE.rotate(90)]),
    "PNG": saved(PICTURE, "PNG"),
    "grey of 16 bits": cv2.imencode(".png", DEEP[..., 0])[1].tobytes(),
    "RGB of 16 bits": cv2.imencode(".png", DEEP)[1].tobytes(),
    "alpha": saved(Image.fromarray(np.dstack([photograph(), photograph(seed=1)[..., 0]])), "PNG"),
    "grey with alpha": saved(PICTURE.convert("LA"), "PNG"),
    "palette": saved(PICTURE.convert("P"), "PNG"),
    "palette with a transparent colour": saved(PICTURE.convert("P"), "PNG", transparency=9),
    "bilevel": saved(PICTURE.convert("1"), "PNG"),
    "gamma": saved(PICTURE, "PNG", pnginfo=GAMMA),
    "animated": saved(PICTURE, "PNG", save_all=True, append_images=[PICTURE.rotate(90)]),
}


@pytest.mark.parametrize("suffix", [".jpeg", ".png"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_image_of_any_kind_and_name_is_read_as_opencv_reads_it(tmp_path, kind, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(KINDS[kind])
    image = read_image(path)
    assert image.shape == (SIZE, SIZE, 3) and image.dtype == np.uint8
    np.testing.assert_array_equal(image, cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1])


def test_exif_orientation_turns_an_image():
    data = saved(PICTURE, "PNG", exif=turned(6))
    np.testing.assert_array_equal(decode_image(data, "x"), np.rot90(photograph(), -1))


def test_16_bits_become_8_without_clipping():
    grey = decode_image(KINDS["grey of 16 bits"], "x")
    np.testing.assert_array_equal(grey, np.repeat(photograph()[..., :1], 3, axis=2))
    np.testing.assert_array_equal(decode_image(KINDS["RGB of 16 bits"], "x"), photograph()[..., ::-1])


@pytest.mark.parametrize("kind", ["PNG", "progressive", "no subsampling", "CMYK"])
@pytest.mark.parametrize("part", [0.02, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(kind, part):
    data = KINDS[kind]
    assert "does not decode as an image" in refusal(data[: int(len(data) * part)])


def test_a_jpeg_without_its_last_two_bytes_is_refused():
    data = encode_image(photograph(), ".jpeg")
    assert data.endswith(b"\xff\xd9") and "truncated" in refusal(data[:-2])


OTHERS = {
    "GIF": (saved(PICTURE, "GIF"), "a GIF image"),
    "BMP": (saved(PICTURE, "BMP"), "a BMP image"),
    "TIFF": (saved(PICTURE, "TIFF"), "a TIFF image"),
    "WebP": (saved(PICTURE, "WEBP"), "a WebP image"),
    "AVIF": (saved(PICTURE, "AVIF"), "an AVIF image"),
    "HEIF": (b"\0\0\0\x18ftypheic" + bytes(99), "a HEIF image"),
    "JPEG XL": (b"\xff\x0a" + bytes(99), "a JPEG XL image"),
    "PostScript": (saved(PICTURE, "EPS"), "a PostScript file"),
    "HTML": (b"\r\n<!DOCTYPE html>\n<html>\xc3\xa9</html>", "an HTML page"),
    "SVG": (b'<?xml version="1.0"?><svg/>', "an XML or SVG file"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
    "text": (b"BMW, not an image\n", "a text file"),
    "nothing": (b"", "empty"),
    "zeros": (bytes(1000), "not an image"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_another_format_is_refused_with_what_it_is(kind):
    data, what = OTHERS[kind]
    assert refusal(data).startswith(f"Cat.jpeg is {what}") and "expected a JPEG or PNG image" in refusal(data)


DAMAGED = {
    "a JPEG's start alone": b"\xff\xd8\xff\xe0",
    "a PNG's start alone": b"\x89PNG\r\n\x1a\n",
    "a compressed text of 2 MB": saved(PICTURE, "PNG").replace(
        chunk(b"IEND", b""), chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**21))) + chunk(b"IEND", b"")
    ),
    "a damaged profile after the pixels": saved(PICTURE, "PNG").replace(chunk(b"IEND", b""), chunk(b"iCCP", b"x")),
    "a chunk before the header": b"\x89PNG\r\n\x1a\n" + chunk(b"tEXt", b"a\0b") + saved(PICTURE, "PNG")[8:],
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_refused_and_nothing_else_printed(kind, capfd):
    assert "does not decode as an image" in refusal(DAMAGED[kind])
    assert capfd.readouterr() == ("", "")


def test_damaged_exif_is_no_reason_to_refuse_or_to_warn(repo, tmp_path):
    """In a process of its own, since pytest resets the filters of warnings."""
    data, exif = saved(PICTURE, "JPEG"), b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01"
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    (tmp_path / "x.jpeg").write_bytes(data[:2] + segment + data[20:])  # in place of the JFIF header
    code = "from pathlib import Path\nfrom pipeline.competition.images import read_image\nread_image(Path('x.jpeg'))"
    environment = {**os.environ, "PYTHONPATH": str(repo)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(("width", "height"), [(256, 255), (255, 256), (1, 1), (512, 512)])
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_another_size_is_refused_with_the_size(form, width, height):
    data = saved(Image.new("RGB", (width, height)), form)
    with pytest.raises(BadInput, match=f"Cat.jpeg is {width} x {height} pixels, expected 256 x 256"):
        decode_image(data, "Cat.jpeg")


@pytest.mark.parametrize("size", [300, 10_000, 13_000, 20_000, 60_000, 2**31 - 1])
def test_a_header_that_declares_a_huge_image_is_refused_in_one_line(size):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning would be more lines on the user's screen
        with pytest.raises(BadInput, match="huge.png"):
            decode_image(png_header(size, size), "huge.png")


@pytest.mark.parametrize("size", [10_000, 60_000])
def test_a_huge_image_takes_no_memory(repo, size):
    code = f"""
import resource, sys
from pipeline.base.errors import BadInput
from pipeline.competition.images import decode_image
data = sys.stdin.buffer.read()
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 100 * 2**20  # an image of {size} x {size} takes {size**2 * 3 // 2**20} MiB
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    decode_image(data, "huge.png")
except BadInput:
    print("refused")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=png_header(size, size),
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(repo)},
        timeout=60,
    )
    assert done.stdout == b"refused\n", done.stderr


def test_an_image_starts_no_program(repo, tmp_path):
    """Pillow passes a PostScript file, whatever its name, to Ghostscript if that is installed."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch '{tmp_path}/started'\n")
    (tmp_path / "gs").chmod(0o755)
    (tmp_path / "Cat.jpeg").write_bytes(saved(Image.fromarray(photograph()), "EPS"))
    code = "from pathlib import Path\nfrom pipeline.competition.images import read_image\nread_image(Path('Cat.jpeg'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(repo), "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        timeout=60,
    )
    assert done.returncode == 1 and "BadInput: Cat.jpeg is a PostScript file" in done.stderr
    assert not (tmp_path / "started").exists()


def test_files_are_read_in_their_order(tmp_path):
    for n in range(5):
        (tmp_path / f"{n}.png").write_bytes(encode_image(photograph(seed=n), ".png"))
    images = read_images(tmp_path / f"{n}.png" for n in (3, 0, 4))
    assert images.shape == (3, SIZE, SIZE, 3) and images.dtype == np.uint8
    for image, seed in zip(images, (3, 0, 4), strict=True):
        np.testing.assert_array_equal(image, photograph(seed=seed))


@pytest.mark.parametrize(("content", "fault"), [(None, "is missing"), (b"no", "is a text file")])
def test_a_bad_file_among_many_is_named(tmp_path, content, fault):
    good, bad = tmp_path / "good.png", tmp_path / "Dog (1).jpeg"
    good.write_bytes(encode_image(photograph(), ".png"))
    if content:
        bad.write_bytes(content)
    with pytest.raises(BadInput, match=rf"Dog \(1\).jpeg {fault}"):
        read_images([good, bad])


def test_no_files_are_no_images():
    assert read_images([]).shape == (0, SIZE, SIZE, 3)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_changed_bytes_raise_only_bad_input(suffix):
    data = encode_image(photograph(), suffix)
    rng = np.random.default_rng(5)
    refused = 0
    for _ in range(300):
        broken = bytearray(data)
        for at in rng.integers(0, min(len(data), int(rng.choice([60, 700, len(data)]))), 3):
            broken[at] = rng.integers(0, 256)
        try:
            assert decode_image(bytes(broken), "x").shape == (SIZE, SIZE, 3)
        except BadInput:
            refused += 1
    assert refused > 50


def test_grey_levels_are_rounded_and_clipped():
    found = to_uint8(np.array([-3.0, -0.4, 0.5, 1.5, 127.6, 255.4, 300.0], np.float32))
    assert found.dtype == np.uint8 and found.tolist() == [0, 0, 0, 2, 128, 255, 255]
