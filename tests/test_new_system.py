"""A system is added as pipeline/systems/__init__.py says: a folder, a section, a recipe; and runs to metrics.json."""

import json
from pathlib import Path
from shutil import copytree

import pandas as pd
import pytest

from pipeline import paths

TOY = Path(__file__).parent / "helpers" / "toy"
SECTION = "class Toy(SystemSettings):\n    kernel: Count\n\n\n"
SETTINGS = {"steps": 4, "batch_size": 2, "validate_every": 2, "checkpoint_every": 2, "kernel": 3}


def insert(path: Path, before: str, text: str) -> None:
    content = path.read_text(encoding="utf-8")
    assert content.count(before) == 1
    path.write_text(content.replace(before, text + before), encoding="utf-8")


@pytest.fixture
def with_toy(tmp_path, new_project) -> Path:
    """A copy of the repository with the system `toy`, its settings in the recipe `toy`."""
    folder = new_project(tmp_path / "repository", {})
    copytree(TOY, folder / "pipeline" / "systems" / "toy")
    (folder / "pipeline" / "systems" / "toy" / "__init__.py").touch()
    insert(folder / "pipeline" / "params.py", "class Predict(Section):", SECTION)
    insert(folder / "pipeline" / "params.py", "    predict: Predict\n", "    toy: Toy\n")
    settings = "".join(f"  {name}: {value}\n" for name, value in SETTINGS.items())
    insert(folder / "recipes" / "defaults.yaml", "predict:\n", f"toy:\n{settings}\n")
    demo = "fetch:\n  demo:\n    pairs_per_class: 3\n    test_images: 2\nsplit:\n  validation_pairs: 2\n"
    (folder / "recipes" / "toy.yaml").write_text(f"recipe: toy\nsystems: [toy]\n{demo}", encoding="utf-8")
    return folder


def test_an_added_system_is_trained_fills_is_scored_and_compared(with_toy, run):
    run(with_toy, "python", "-m", "pipeline.recipe", "toy")
    output = run(with_toy, "dvc", "repro").stdout
    assert "Running stage 'train@toy'" in output
    found = json.loads((with_toy / paths.METRICS).read_text(encoding="utf-8"))["validation"]
    assert 0 < found["toy"] < 1 and found["submission"]
    curve = pd.read_csv(with_toy / paths.CURVES / "toy" / "validation.csv")
    assert curve["step"].tolist() == [2, 4] and (with_toy / paths.SUBMISSION).exists()
    assert "| toy " in run(with_toy, "python", "-m", "pipeline.compare").stdout
