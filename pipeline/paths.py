"""Where everything lies, from the repository's root. dvc.yaml says which stage makes what."""

from pathlib import Path

PARAMS = Path("params.yaml")
RECIPES = Path("recipes")
RAW = Path("data/raw")
TRUTH = Path("data/truth")  # whole test images; empty unless the competition was drawn
INDEX = Path("data/index.csv")
AUGMENTED = Path("data/augmented")
MODEL = Path("data/model")
FILLED = Path("data/filled")
TWINS = Path("data/twins.csv")  # which test image was filled from which training image
SUBMISSION = Path("submissions/submission.csv")
LEDGER = Path("submissions/ledger.csv")  # in git: no stage makes it
METRICS = Path("metrics.json")
LOSSES = Path("reports/losses.csv")
VALIDATION = Path("reports/validation.csv")
SHEET = Path("reports/sheet.png")
PAGE = Path("reports/index.html")
WORK = Path(".work")  # downloads and checkpoints: neither git's nor DVC's
