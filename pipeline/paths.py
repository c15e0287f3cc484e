"""Where everything lies, from the repository's root. dvc.yaml says which stage makes what."""

from pathlib import Path

PARAMS = Path("params.yaml")
RECIPES = Path("recipes")
RAW = Path("data/raw")
TRUTH = Path("data/truth")  # whole test images; empty unless the competition was drawn
INDEX = Path("data/index.csv")
AUGMENTED = Path("data/augmented")
MODELS = Path("data/model")  # a folder for each system
FILLED = Path("data/filled")
HELD_OUT = Path("data/held_out.npz")  # validation pairs, filled alike and by each system alone
BLEND = Path("data/blend.json")  # the weights of the systems
TWINS = Path("data/twins.csv")  # which test image was filled from which training image
SUBMISSION = Path("submissions/submission.csv")
LEDGER = Path("submissions/ledger.csv")  # in git: no stage makes it
METRICS = Path("metrics.json")
CURVES = Path("reports/curves")  # a folder for each system
SHEET = Path("reports/sheet.png")
PAGE = Path("reports/index.html")
COMPARISON = Path("reports/comparison.md")  # a command makes it and the picture
COMPARISON_SHEET = Path("reports/comparison.png")
WORK = Path(".work")  # downloads and checkpoints: neither git's nor DVC's
TIMES = Path(".work/times")  # how long the models trained here took
