"""Where everything lies, relative to the repository's root. dvc.yaml says which stage writes what."""

from pathlib import Path

PARAMS = Path("params.yaml")
RECIPES = Path("recipes")
DEFAULTS = Path("recipes/defaults.yaml")
RAW = Path("data/raw")
TRUTH = Path("data/truth")  # the test images without holes; empty unless the competition was drawn
INDEX = Path("data/index.csv")
SPLIT = Path("data/split.csv")  # the index, with the pairs held out for validation marked
AUGMENTED = Path("data/augmented")
MODELS = Path("data/model")  # a folder for each system
FILLED = Path("data/filled")
VALIDATION = Path("data/validation.npz")  # the validation pairs' boxes as filled for the submission and by each system
BLEND = Path("data/blend.json")  # the weight of each system
TWINS = Path("data/twins.csv")  # which image is filled from which training image
TWIN_PIXELS = Path("data/twins.npz")  # what the twins show
SUBMISSION = Path("submissions/submission.csv")
LEDGER = Path("submissions/ledger.csv")  # in git; no stage writes it
METRICS = Path("metrics.json")  # what runs are compared by
SCORES = Path("reports/scores.csv")  # every fill on every subset
CURVES = Path("reports/curves")  # a folder for each system
SHEET = Path("reports/sheet.jpg")
TEST_SHEET = Path("reports/test_sheet.jpg")
PAGE = Path("reports/index.html")
COMPARISON = Path("reports/comparison.md")  # written by a command, as its picture is
COMPARISON_SHEET = Path("reports/comparison.jpg")
WORK = Path(".work")  # downloads and checkpoints, ignored by git and DVC
TENSORBOARD = Path(".work/tensorboard")  # a folder for each system
TIMES = Path(".work/times")  # how long the models trained here took
