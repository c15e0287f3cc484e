"""What a leaderboard score says of the truth's channel order and scale."""

import numpy as np
import pytest

from pipeline.competition import submission
from pipeline.report.conventions import explain, score_conventions

DEMO = {"bgr minmax": 0.1805, "bgr unit": 0.177, "rgb minmax": 0.2516, "rgb unit": 0.2516}  # its validation pairs
WEAK = {"bgr minmax": 0.2431, "bgr unit": 0.237, "rgb minmax": 0.2702, "rgb unit": 0.2673}  # of its pix2pix alone
SCALED = {"bgr minmax": 0.13, "bgr unit": 0.2, "rgb minmax": 0.3, "rgb unit": 0.35}


@pytest.mark.parametrize("score", [0.125, 0.1478, 0.1504, 0.1805, 0.2])
def test_a_score_that_fits_says_nothing(score):
    assert explain(score, "bgr minmax", DEMO) == ""


def test_another_channel_order_is_named_with_the_score_to_expect():
    """The demo's submission scores 0.2280 against its test images in rgb minmax, and 0.2286 in rgb unit."""
    for score in (0.2280, 0.2286):
        expected = f"another truth fits {score:.5f} better: set submission.channels: rgb, then expect about 0.164"
        assert explain(score, "bgr minmax", DEMO) == expected
    swapped = {"rgb minmax": 0.1805, "rgb unit": 0.177, "bgr minmax": 0.2516, "bgr unit": 0.2516}
    assert "set submission.channels: bgr, then" in explain(0.2280, "rgb minmax", swapped)


def test_settings_are_named_only_where_scores_tell_them_apart():
    assert "set submission.scale: unit, then expect about 0.130" in explain(0.2, "bgr minmax", SCALED)
    both = "set submission.channels: rgb and submission.scale: unit, then"
    assert both in explain(0.5, "bgr minmax", SCALED | {"rgb minmax": 0.24, "rgb unit": 0.5})
    assert explain(0.2702, "bgr minmax", WEAK) == ""


@pytest.mark.parametrize("score", [0.5, 0.1])
def test_a_score_far_from_all_is_explained_by_none(score):
    expected = f"no channel order and scale fit {score:.5f}: on the validation pairs they give 0.17700 to 0.25160"
    assert explain(score, "bgr minmax", DEMO) == expected


def test_a_score_of_nothing_says_nothing():
    assert explain(0.0, "bgr minmax", DEMO) == "" == explain(0.2, "bgr minmax", DEMO | {"bgr minmax": 0.0})


def test_the_targets_themselves_score_zero_in_their_own_convention_alone():
    rng = np.random.default_rng(3)
    images = rng.integers(40, 200, (2, 256, 256, 3), np.uint8)
    boxes = np.array([[[0, 0], [100, 100]]] * 2, np.int32)
    found = score_conventions(submission.encode(images, boxes, "rgb", "unit"), images, boxes)
    assert [name for name, value in found.items() if value == 0] == ["rgb unit"] and len(found) == 4
