"""The report page and the sheets: their content, and that the page loads nothing from elsewhere."""

import io
import re
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.competition.images import SIZE, read_image
from pipeline.report.page import Heading, make_page
from pipeline.report.sheet import GROUPS, SIDE, draw_sheet, encode_sheet, spread, spread_over

METRICS = {
    "validation": {
        "pix2pix": {"all": 0.16714, "with_twins": 0.12345, "without_twins": 0.19876, "Cat": 0.15432},
        "telea": {"all": 0.18001, "with_twins": 0.17778, "without_twins": 0.18223, "Cat": 0.16661},
    },
    "test": {"pix2pix": {"all": 0.21098, "Dog": 0.20304}, "telea": {"all": 0.22229, "Dog": 0.23336}},
}


HEADING = Heading(["pix2pix", "residual"], "demo", "1 x CPU", {"pix2pix.steps": ("400", "1000")})
COMPARISON = pd.DataFrame({"system": ["pix2pix", "residual"], "RMSE": ["0.1671", "0.1593"]})
SHEETS = {"Validation pairs": "sheet.jpg", "Test images": "test_sheet.jpg"}


def page(heading=HEADING, metrics=METRICS, steps=30, comparison=COMPARISON) -> str:
    step = np.arange(1, steps + 1)
    names = ("generator", "generator_gan", "generator_l1", "discriminator")
    losses = pd.DataFrame({"step": step} | {name: 1 / (step + i) for i, name in enumerate(names)})
    validation = pd.DataFrame({"step": step * 10, "rmse": 0.3 + abs(step - 7) / 100})
    curves = {"pix2pix": {"losses": losses, "validation": validation}, "residual": {"validation": validation}}
    return make_page(heading, metrics, comparison, curves, SHEETS)


class Reader(HTMLParser):
    """Collects the tags with their attributes, and the text between tags."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_has_no_scripts_and_loads_nothing_from_elsewhere():
    assert not re.search(r"@import|url\((?!['\"]?#)", page())
    read = Reader(page())
    assert not {tag for tag, _ in read.tags} & {"script", "link", "iframe", "object", "embed", "base", "form"}
    loading = {"src", "href", "xlink:href", "srcset", "poster", "data", "action", "background", "style", "content"}
    for _, attributes in read.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in loading:
                assert "//" not in (value or "")
    assert {attributes["src"] for _, attributes in read.tags if "src" in attributes} == set(SHEETS.values())
    assert all(
        attributes[name].startswith("#") or attributes[name] in SHEETS.values()
        for _, attributes in read.tags
        for name in attributes.keys() & {"href", "xlink:href"}
    )


def test_the_page_has_every_score():
    text = " ".join(Reader(page()).text)
    assert "No pairs were held out" not in text
    for scores in METRICS.values():
        for fill, subsets in scores.items():
            assert fill in text
            for subset, value in subsets.items():
                assert subset.replace("_", " ") in text and f"{value:.4f}" in text


def test_the_page_has_a_title_a_plot_for_each_curve_the_comparison_and_the_sheets():
    read = Reader(page())
    tags = [tag for tag, _ in read.tags]
    assert tags.count("svg") == 6 and tags.count("img") == 2 and tags.count("table") == 3
    text = " ".join(read.text)
    assert text.count("Photo reconstruction: pix2pix, residual") == 2  # title and heading
    for curve in ("losses: generator l1", "losses: generator gan", "losses: discriminator", "validation: RMSE"):
        assert curve in text
    assert "The systems" in text and "0.1593" in text
    assert Reader(page(comparison=None)).text != read.text and "The systems" not in page(comparison=None)


def test_the_top_has_the_recipe_the_devices_and_what_differs_from_the_defaults():
    text = re.sub("<[^>]*>", "", page()[page().index("<h1>") :])
    assert "Recipe demo, trained on 1 x CPU." in text and "pix2pix.steps: 400 (1000)" in text
    assert "All settings have their defaults." in page(heading=Heading(["residual"], "r", "1 x GPU", {}))


def labels(text: str) -> list[list[str]]:
    """The texts of each curve."""
    return [Reader(part.partition("</svg>")[0]).text for part in text.split("<svg")[1:]]


def test_the_smallest_validation_point_is_named_and_marked():
    assert page().count("smallest 0.3000 at step 70") == 2
    marked = ["var(--mark)" in part.partition("</svg>")[0] for part in page().split("<svg")[1:]]
    assert marked == [True, False, False, False, False, True]  # in the validation curves


def test_a_curve_that_falls_by_more_than_ten_is_logarithmic_and_others_are_not():
    logarithmic = [{"0.05", "0.1", "0.2"} <= set(found) for found in labels(page())]
    assert logarithmic == [False, True, True, True, False, False]  # the discriminator's falls to an eighth


def test_all_curves_of_a_system_have_the_same_steps():
    """pix2pix trained for 300 steps; its losses here end at 30."""
    for found in labels(page())[:5]:
        assert "300" in " ".join(found).split()


def test_colours_are_the_pages_own_in_light_and_dark():
    svg = "".join(part.partition("</svg>")[0] for part in page().split("<svg")[1:])
    assert "#0" not in re.sub(r"#[mp][0-9a-f]{10}", "", svg) and "black" not in svg and "var(--quiet)" in svg
    assert "prefers-color-scheme: dark" in page()


def test_the_page_is_complete_html_in_utf_8_and_the_same_results_give_the_same_bytes():
    text = page()
    assert text.lower().startswith("<!doctype html>") and text.rstrip().endswith("</html>")
    assert 'charset="utf-8"' in text and text.count("<svg") == text.count("</svg>") == 6
    assert "<?xml" not in text
    assert page() == text != page(steps=29)


def test_the_users_style_changes_nothing():
    text = page()
    with matplotlib.rc_context({"lines.linewidth": 5, "font.size": 20, "svg.fonttype": "path"}):
        assert page() == text


def test_without_validation_the_page_says_so_and_has_the_other_scores_and_curves():
    curves = {"residual": {"losses": pd.DataFrame({"step": [1, 2], "loss": [0.5, 0.25]})}}
    text = make_page(HEADING, {"test": METRICS["test"]}, None, curves, SHEETS)
    assert "No pairs were held out" in text and "RMSE, test" in text and "RMSE, validation" not in text
    assert text.count("<svg") == 1 and "losses: loss" in text


def test_names_are_escaped():
    odd = Heading(["<tt>"], "a < b & <script>alert(1)</script>", "<em>", {"<kbd>": ("<q>", "<s>")})
    text = page(heading=odd, metrics={"<i>x</i>": {"<small>y</small>": {"<u>z</u>": 0.5}}})
    tags = {tag for tag, _ in Reader(text).tags}
    assert not tags & {"script", "i", "small", "u", "tt", "em", "kbd", "q", "s"}
    assert "a &lt; b &amp; &lt;script&gt;" in text


def test_a_missing_subset_is_left_empty():
    text = page(metrics={"validation": {"pix2pix": {"all": 0.2, "Cat": 0.3}, "telea": {"all": 0.4}}})
    assert "nan" not in " ".join(Reader(text).text).lower()


def test_a_training_of_one_step_has_a_page():
    assert Reader(page(steps=1)).text


def samples(n: int) -> list[tuple[np.ndarray, ...]]:
    """Three images each; every image has its own colour."""
    return [
        tuple(np.full((SIZE, SIZE, 3), (20 * i + 10, 60 * column + 50, 200), np.uint8) for column in range(3))
        for i in range(n)
    ]


def places(sheet: np.ndarray, colour: np.ndarray) -> tuple[int, int]:
    """The upper left corner of the square of this colour, which must be complete."""
    rows, columns = np.nonzero((sheet == colour).all(axis=2))
    assert len(rows) == SIDE * SIDE
    assert np.ptp(rows) == np.ptp(columns) == SIDE - 1
    return rows.min(), columns.min()


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_the_sheet_shows_every_image_of_every_sample_side_by_side(n):
    chosen = samples(n)
    sheet = draw_sheet(chosen, [f"image {i}" for i in range(n)])
    assert sheet.dtype == np.uint8 and sheet.ndim == 3 and sheet.shape[2] == 3
    corners = [[places(sheet, image[0, 0]) for image in images] for images in chosen]
    for images in corners:
        assert len({top for top, _ in images}) == 1
        assert images == sorted(images)
        assert all(b[1] - a[1] >= SIDE for a, b in zip(images, images[1:], strict=False))
    starts = [images[0] for images in corners]
    assert len(set(starts)) == n and starts == sorted(starts)
    assert len({left for _, left in starts}) == min(n, GROUPS)


def test_a_caption_is_below_its_sample():
    chosen = samples(3)
    plain, written = (draw_sheet(chosen, [text] * 3) for text in ("", "Cat-Train (24).jpeg: RMSE 0.1234"))
    for images in chosen:
        top, left = places(written, images[0][0, 0])
        foot = (slice(top + SIDE, top + SIDE + 20), slice(left, left + 2 * SIDE))
        assert (written[foot] != plain[foot]).any()
        above = (slice(top, top + SIDE), slice(left, left + SIDE))
        assert (written[above] == plain[above]).all()


def test_each_column_has_a_heading():
    sheet = draw_sheet(samples(2), ["", ""])
    for images in samples(2):
        for image in images:
            top, left = places(sheet, image[0, 0])
            assert (sheet[:top, left : left + SIDE] < 128).any()


def test_the_sheet_is_rgb_and_so_is_its_jpeg():
    red = np.zeros((SIZE, SIZE, 3), np.uint8)
    red[..., 0] = 255
    sheet = draw_sheet([(red, red, red)], [""])
    assert (sheet == (255, 0, 0)).all(axis=2).sum() == 3 * SIDE * SIDE
    with Image.open(io.BytesIO(encode_sheet(sheet)), formats=["JPEG"]) as decoded:
        assert abs(np.asarray(decoded.convert("RGB")).astype(int) - sheet).mean() < 2


def test_a_sheet_of_eight_samples_is_small_as_jpeg(demo_competition):
    raw = demo_competition.raw / "Training_Data"
    files = sorted(raw.glob("*/Masked_Train/*.jp*g"))[:8]
    masked = [read_image(path) for path in files]
    assert len(encode_sheet(draw_sheet([(image,) * 3 for image in masked], ["x: RMSE 0.1"] * 8))) < 250_000


def test_a_caption_in_any_script_is_drawn():
    assert draw_sheet(samples(1), ["Кот ½ 猫.jpeg: RMSE 0.1"]).shape == draw_sheet(samples(1), [""]).shape


@pytest.mark.parametrize(("count", "samples", "shown"), [(9, 3, [0, 4, 8]), (3, 8, [0, 1, 2]), (1, 4, [0])])
def test_the_chosen_rows_are_evenly_spread_or_all(count, samples, shown):
    assert spread(count, samples).tolist() == shown


def test_rows_are_spread_over_the_classes():
    classes = np.array(["Cat"] * 10 + ["Dog"] * 2 + ["Cat"] * 10 + ["Elephant"] * 20)
    chosen = spread_over(classes, 9)
    assert pd.Series(classes[chosen]).value_counts().to_dict() == {"Cat": 4, "Elephant": 3, "Dog": 2}
    assert chosen.tolist() == [0, 6, 15, 21, 10, 11, 22, 32, 41]
    assert sorted(spread_over(classes, 99)) == list(range(42)) == sorted(spread_over(classes, 42))
    assert spread_over(np.array([""] * 9), 3).tolist() == [0, 4, 8]


def test_a_caption_may_have_a_second_line():
    one, two = (draw_sheet(samples(3), ["", text, ""]) for text in ("", "\ntwin: Cat/Cat-Train (1).jpeg"))
    assert two.shape[0] > one.shape[0]
    top, left = places(two, samples(3)[1][0][0, 0])
    assert (two[top + SIDE + 20 : top + SIDE + 36, left : left + SIDE] < 128).any()
