"""Which convention the leaderboard's truth has: its channel order and scale, from what a submission scored."""

import math
from itertools import product

import numpy as np

from pipeline.competition import submission
from pipeline.competition.metric import rmse

SET, FILL = "convention", "submission"  # of these rows in reports/scores.csv; the subset names the convention
CHOICES = {"channels": ("bgr", "rgb"), "scale": ("minmax", "unit")}  # of the section submission in params.yaml

# A score and a validation RMSE differ without any mistake: by 4% (one standard deviation) with 400 validation pairs
# and 200 test images, by 9% with 40 pairs, and by the twins, 17% in the demo. MARGIN is the square of the least
# relative error for which another convention is named. Beyond FAR, a ratio, no convention explains a score.
MARGIN = 0.2**2
FAR = 1.5


def score_conventions(values: np.ndarray, target: np.ndarray, boxes: np.ndarray) -> dict[str, float]:
    """RMSE of a submission's values, as submission.encode returns them, against the target in each convention.

    `target` is uint8 RGB [n, 256, 256, 3]. The keys are like "bgr minmax".
    """
    return {" ".join(names): rmse(values, submission.encode(target, boxes, *names)) for names in conventions()}


def conventions() -> list[tuple[str, ...]]:
    """Channel order and scale of every convention."""
    return list(product(*CHOICES.values()))


def explain(score: float, current: str, known: dict[str, float]) -> str:
    """What a leaderboard score says of the truth's convention; "" if it fits `current`, the submission's own.

    `known` has the validation RMSE against a truth in each convention. A score tells two conventions apart only if
    their RMSEs differ clearly. Of those that fit as well as the best, the one that changes fewest settings is named.
    """
    if min(score, *known.values()) <= 0:
        return ""
    error = {name: math.log(score / value) ** 2 for name, value in known.items()}
    least = min(error.values())
    if least > math.log(FAR) ** 2:
        low, high = min(known.values()), max(known.values())
        return f"no channel order and scale fit {score:.5f}: on the validation pairs they give {low:.5f} to {high:.5f}"
    changes = {name: settings_changed(current, name) for name in known if error[name] <= least + MARGIN}
    best = min(changes, key=lambda name: (len(changes[name]), error[name]))
    if not changes[best]:
        return ""
    expected = score * known[current] / known[best]
    return f"another truth fits {score:.5f} better: set {' and '.join(changes[best])}, then expect about {expected:.3f}"


def settings_changed(current: str, other: str) -> list[str]:
    """The settings to change from one convention to another, as "submission.channels: rgb"."""
    parts = zip(CHOICES, current.split(), other.split(), strict=True)
    return [f"submission.{setting}: {new}" for setting, old, new in parts if old != new]
