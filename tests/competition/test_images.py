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
from PIL import Image

from pipeline.base.errors import BadInput
from pipeline.competition.images import SIZE, SUFFIXES, decode_image, encode_image, read_images, to_uint8


def photograph(size=SIZE, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def saved(image, form):
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def png_header(width, height):
    """A PNG of a hundred bytes that declares this size."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


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


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_other_colour_modes_become_rgb(mode):
    image = Image.fromarray(photograph()).convert(mode)
    decoded = decode_image(saved(image, "JPEG" if mode == "CMYK" else "PNG"), "x")
    assert decoded.shape == (SIZE, SIZE, 3) and decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - np.asarray(image.convert("RGB"))).mean() < 3


@pytest.mark.parametrize("part", [0.02, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("suffix", [".jpeg", ".png"])
def test_a_truncated_file_is_refused(suffix, part):
    data = encode_image(photograph(), suffix)
    with pytest.raises(BadInput, match=r"Cat \(1\).*does not decode"):
        decode_image(data[: int(len(data) * part)], "Cat (1)")


@pytest.mark.parametrize("data", [b"", b"\0" * 1000, b"not an image", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"])
def test_other_bytes_are_refused(data):
    with pytest.raises(BadInput, match="Cat.jpeg does not decode"):
        decode_image(data, "Cat.jpeg")


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
    assert done.returncode == 1 and "BadInput: Cat.jpeg does not decode" in done.stderr
    assert not (tmp_path / "started").exists()


def test_files_are_read_in_their_order(tmp_path):
    for n in range(5):
        (tmp_path / f"{n}.png").write_bytes(encode_image(photograph(seed=n), ".png"))
    images = read_images(tmp_path / f"{n}.png" for n in (3, 0, 4))
    assert images.shape == (3, SIZE, SIZE, 3) and images.dtype == np.uint8
    for image, seed in zip(images, (3, 0, 4), strict=True):
        np.testing.assert_array_equal(image, photograph(seed=seed))


@pytest.mark.parametrize(("content", "fault"), [(None, "is missing"), (b"no", "does not decode")])
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
