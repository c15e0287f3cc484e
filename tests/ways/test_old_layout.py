"""A tag made before the stage `split` existed is still reproduced, because it runs its own code."""

import io
import subprocess
import tarfile
from shutil import copy, copytree, ignore_patterns

import pytest
import yaml

from pipeline import paths
from pipeline.base.files import remove
from tests.helpers.repository import Repository

OLD = "f715a8f"  # the last commit before the systems had folders
FILES = ("pipeline", "recipes", "dvc.yaml", ".gitignore", ".dvcignore", "data/archive", "submissions/.gitignore")
SETTINGS = {
    "augment": {"shards": 5},
    "train": {"precision": "float32", "validation_pairs": 2},
    "pix2pix": {"steps": 4, "validate_every": 2, "checkpoint_every": 2, "shuffle_buffer": 10, "filters": 2},
    "residual": {"steps": 4, "validate_every": 2, "checkpoint_every": 2, "filters": 2},
    "evaluate": {"samples": 2},
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def old(tmp_path_factory, repo, run, environment, params_file) -> Repository:
    """A repository with the tag `old`, made by the old code, and today's code committed after it."""
    done = subprocess.run(["git", "-C", repo, "archive", OLD, *FILES], capture_output=True)
    if done.returncode != 0:
        pytest.skip(f"the history here lacks commit {OLD}: {done.stderr.decode().strip()}")
    folder = tmp_path_factory.mktemp("old")
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "init", "--quiet")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    settings = yaml.safe_load((folder / "recipes/demo.yaml").read_text(encoding="utf-8"))
    for section, values in SETTINGS.items():
        settings[section] |= values
    settings["fetch"]["demo"] |= {"pairs_per_class": 3, "test_images": 4}
    (folder / paths.PARAMS).write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    old = Repository(folder, environment | {"PYTHONDONTWRITEBYTECODE": "1"})
    old.run("dvc", "repro")
    old.commit("old")

    for name in ("pipeline", "recipes"):
        remove(folder / name)
        copytree(repo / name, folder / name, ignore=ignore_patterns("__pycache__"))
    copy(repo / "dvc.yaml", folder / "dvc.yaml")
    params_file(folder)
    old.commit()
    return old


@pytest.mark.parametrize("options", [(), ("--from-scratch",)])
def test_a_tag_of_the_old_layout_is_reproduced(old, options):
    output = old.reproduce("old", *options)
    verdict = output.splitlines()[-1]
    assert verdict.startswith("reproduce: old: identical, by the md5 in its dvc.lock; validation RMSE 0.")
    assert ("Running stage 'augment'" in output) == bool(options) and "stage 'split'" not in output
