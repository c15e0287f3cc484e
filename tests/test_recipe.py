"""`python -m pipeline.recipe`: sets params.yaml, or says why not and leaves it as it is."""

import shutil
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml

from pipeline.archive.unpack import checksum, contents
from pipeline.base.errors import BadInput
from pipeline.params import load_params
from pipeline.paths import PARAMS
from pipeline.recipe import main

FOLDER = Path(__file__).parents[1] / "recipes"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != "defaults")


@pytest.fixture
def home(tmp_path, repo, demo_competition):
    """A folder with the recipes, params.yaml of the demo and an archive."""
    shutil.copytree(repo / "recipes", tmp_path / "recipes")
    shutil.copy(repo / PARAMS, tmp_path / PARAMS)
    shutil.make_archive(tmp_path / "photos", "zip", demo_competition.raw)
    return tmp_path


@pytest.fixture
def recipe(home, monkeypatch, capsys):
    """`recipe("demo")` runs the command there, in this process."""
    monkeypatch.chdir(home)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["recipe", *arguments])
        status = error = ""
        try:
            main()
        except BadInput as refusal:
            status, error = 1, f"recipe: {refusal}\n"
        except SystemExit as end:
            status = end.code
        printed = capsys.readouterr()
        return CompletedProcess(arguments, status or 0, printed.out, printed.err + error)

    return call


def comments(path):
    return [line.split("#", 1)[1] for line in path.read_text().splitlines() if "#" in line]


@pytest.mark.parametrize("name", RECIPES)
def test_params_become_the_recipe(home, recipe, name):
    (home / PARAMS).write_text("whatever: was here\n")
    done = recipe(name, "--demo")
    assert done.returncode == 0 and done.stdout == ""
    assert done.stderr == f"recipe: params.yaml is now {name}; `dvc repro` runs it\n"
    params = load_params(home / PARAMS).model_dump()
    changes = yaml.safe_load((home / "recipes" / f"{name}.yaml").read_text())
    for section, values in changes.items():
        ours = params[section]
        assert ({key: ours[key] for key in values} if isinstance(values, dict) else ours) == values
    assert params["recipe"] == name and params["fetch"]["source"] == "demo"
    assert comments(home / PARAMS) == comments(FOLDER / "defaults.yaml")
    assert not list(home.glob("*.partial"))


def test_the_repositorys_params_are_the_demo_byte_for_byte(home, recipe, repo):
    assert recipe("demo").returncode == 0
    assert (home / PARAMS).read_bytes() == (repo / PARAMS).read_bytes()


def test_a_recipe_takes_back_what_another_changed(home, recipe, repo):
    recipe("baseline", "--archive", "photos.zip")
    assert load_params(home / PARAMS).pix2pix.steps == 160_000
    recipe("demo")
    assert (home / PARAMS).read_bytes() == (repo / PARAMS).read_bytes()


@pytest.mark.parametrize("archive", ["photos.zip", "a folder (1)", "no", "007", "ü #1: x"])
def test_an_archive_becomes_the_source_with_the_checksum_of_its_content(home, recipe, demo_competition, archive):
    if archive != "photos.zip":
        shutil.copytree(demo_competition.raw, home / archive)
    done = recipe("baseline", "--archive", archive)
    assert done.returncode == 0, done.stderr
    fetch = load_params(home / PARAMS).fetch
    assert (fetch.source, fetch.archive) == ("archive", archive)
    assert fetch.checksum == checksum(demo_competition.raw, contents(demo_competition.raw))
    assert len(comments(home / PARAMS)) > 20


def test_the_next_recipe_keeps_the_archive_or_the_account(home, recipe):
    recipe("laptop", "--archive", "photos.zip")
    archive = load_params(home / PARAMS).fetch
    recipe("best")
    assert load_params(home / PARAMS).fetch == archive and load_params(home / PARAMS).recipe == "best"
    recipe("laptop", "--kaggle")
    assert recipe("best").returncode == 0
    assert load_params(home / PARAMS).fetch.source == "kaggle"


def test_a_recipe_for_the_real_archive_does_not_run_on_the_drawn_one_unasked(home, recipe):
    before = (home / PARAMS).read_bytes()
    done = recipe("laptop")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "recipe laptop is for the competition's own data: add ARCHIVE=" in done.stderr
    assert "SOURCE=kaggle" in done.stderr and (home / PARAMS).read_bytes() == before


def test_an_archive_in_the_repository_is_ignored_by_git(home, recipe, run, demo_competition):
    shutil.copytree(demo_competition.raw, home / "my photos")
    shutil.copy(FOLDER.parent / ".gitignore", home)
    run(home, "git", "init", "--quiet")
    recipe("laptop", "--archive", "photos.zip")
    done = recipe("laptop", "--archive", "my photos")
    assert "recipe: /my photos is now in .gitignore" in done.stderr
    run(home, "git", "add", "--all")
    listed = run(home, "git", "ls-files").stdout
    assert "params.yaml" in listed and "photos" not in listed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("reports",), "there is no recipe 'reports'; there are all, baseline, best, cyclegan, demo, "),
        (("../recipes/demo",), "there is no recipe '../recipes/demo'"),
        (("",), "there is no recipe ''"),
        (("defaults",), "there is no recipe 'defaults'"),
        (("demo", "--archive", "gone.zip"), "gone.zip: no such archive"),
        (("nothing", "--archive", "photos.zip"), "there is no recipe 'nothing'"),
    ],
)
def test_what_is_not_there_is_one_line_and_params_stay(home, recipe, arguments, message):
    before = "recipe: mine # kept\n"
    (home / PARAMS).write_text(before)
    done = recipe(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"recipe: {message}") and done.stderr.count("\n") == 1
    assert (home / PARAMS).read_text() == before and not list(home.glob("*.partial"))


def test_a_recipe_with_a_wrong_setting_is_refused_by_its_name(home, recipe):
    (home / PARAMS).write_text("recipe: mine\n")
    (home / "recipes" / "mine.yaml").write_text("recipe: mine\npix2pix:\n  stepz: 5\n")
    done = recipe("mine", "--demo")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "recipes/mine.yaml: pix2pix.stepz is not a setting (did you mean steps?)" in done.stderr
    assert (home / PARAMS).read_text() == "recipe: mine\n"


def test_help_names_the_recipes(recipe):
    done = recipe("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in RECIPES) and "--archive" in done.stdout
