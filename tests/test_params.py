"""params.yaml: every key there is, and that nothing else is taken."""

from functools import reduce
from pathlib import Path

import pytest
import yaml

from pipeline.base.errors import BadInput
from pipeline.params import SYSTEMS, check_params, load_params
from pipeline.recipe import DEFAULTS, merge, names

REPO = Path(__file__).parents[1]
FOLDER = REPO / "recipes"


def flat(content: dict, prefix: str = "") -> dict:
    """Every setting by its dotted name."""
    found = {}
    for key, value in content.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def recipe(name):
    """A recipe's settings: the defaults with its changes."""
    content, changes = (yaml.safe_load((FOLDER / f"{part}.yaml").read_text()) for part in (DEFAULTS, name))
    merge(content, changes)
    return content


RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != DEFAULTS)
SETTINGS = flat(recipe("demo"))
SECTIONS = [name for name, value in recipe("demo").items() if isinstance(value, dict)]


def value_of(params, dotted):
    return reduce(getattr, dotted.split("."), params)


def refusal_of(path):
    with pytest.raises(BadInput) as refusal:
        load_params(path)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.fixture
def changed(tmp_path, params_file):
    """`changed(key, value)` gives the message with which that change is refused."""
    return lambda key, value: refusal_of(params_file(tmp_path, **{key: value}))


# What there is


def test_the_repositorys_params_are_the_demo():
    assert yaml.safe_load((REPO / "params.yaml").read_text()) == recipe("demo")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_valid_says_its_name_and_leaves_source_and_submission_to_the_user(monkeypatch, name):
    params = check_params(recipe(name), name)
    assert params.recipe == name
    changes = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    assert "submission" not in changes and changes.get("fetch") == ({"source": "demo"} if name == "demo" else None)
    monkeypatch.chdir(REPO)
    assert name in names()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_its_cost_and_score_on_top_and_only_what_it_changes(name):
    text = (FOLDER / f"{name}.yaml").read_text()
    assert text.startswith("# ") and {"recipe"} <= set(yaml.safe_load(text)) <= {"recipe", "systems", *SECTIONS}
    if name not in ("baseline", "quick"):  # they spell out all that their claim rests on
        defaults, changes = (flat(yaml.safe_load((FOLDER / f"{part}.yaml").read_text())) for part in (DEFAULTS, name))
        assert not changes.items() & {key: value for key, value in defaults.items() if key != "systems"}.items()


def test_the_recipe_baseline_spells_out_the_baselines_settings():
    changes = yaml.safe_load((FOLDER / "baseline.yaml").read_text())
    assert changes["systems"] == ["pix2pix"] and changes["train"]["precision"] == "float32"
    assert changes["match"]["twins"] is False
    claim = {"steps": 160_000, "batch_size": 1, "shuffle_buffer": 1000, "learning_rate": 3e-4, "beta_1": 0.5}
    claim |= {"lambda_gan": 1.0, "lambda_l1": 1000.0, "lambda_l2": 0.0, "loss": "image", "filters": 64}
    claim |= {"mask_channel": False, "random_holes": False}
    assert claim.items() <= changes["pix2pix"].items()
    quick = yaml.safe_load((FOLDER / "quick.yaml").read_text())["pix2pix"]
    assert claim.keys() == quick.keys() and claim | {"steps": 1000, "batch_size": 4} == quick


def test_merging_goes_section_by_section():
    settings = {"a": {"b": {"c": 1, "d": 2}, "e": 3}, "f": 4}
    merge(settings, {"a": {"b": {"c": 9}}, "f": 8})
    assert settings == {"a": {"b": {"c": 9, "d": 2}, "e": 3}, "f": 8}


# What is taken


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pix2pix.learning_rate", 1),
        ("pix2pix.lambda_l1", 0),
        ("pix2pix.beta_1", 0),
        ("train.precision", "mixed_bfloat16"),
        ("train.precision", "float32"),
        ("train.seed", 0),
        ("pix2pix.filters", 1),
        ("fetch.source", "kaggle"),
        ("split.validation_pairs", 1),
        ("fetch.demo.seed", 0),
        ("augment.seed", 0),
        ("submission.channels", "rgb"),
        ("submission.scale", "unit"),
        ("predict.weights", "last"),
        ("predict.blend", {"residual": 1.5, "pix2pix": -0.5}),
        ("predict.blend", {"residual": 1, "pix2pix": 0}),
        ("systems", ["residual"]),
        ("systems", ["residual", "pix2pix"]),
        ("pix2pix.lambda_gan", 0),
        ("pix2pix.loss", "holes"),
        ("residual.resolution", 128),
        ("residual.average", 0),
        ("residual.zoom", 1.4),
        ("residual.masked_images", True),
        ("systems", ["vanilla_gan", "cyclegan", "diffusion"]),
        ("train.strategy", "mirrored"),
        ("train.strategy", "multi_worker"),
        ("cyclegan.generator", "unet"),
        ("cyclegan.pretrained", "keras-io/CycleGAN"),
        ("cyclegan.lambda_identity", 0),
        ("diffusion.tune", "whole"),
        ("diffusion.pretrained", "a/folder"),
        ("diffusion.resolution", 256),
    ],
)
def test_another_value_is_taken(tmp_path, params_file, key, value):
    assert value_of(load_params(params_file(tmp_path, **{key: value})), key) == value


def test_settings_cannot_be_changed(tmp_path, params_file):
    params = load_params(params_file(tmp_path))
    with pytest.raises(ValueError, match="frozen"):
        params.pix2pix.steps = 1


# What is refused


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("pix2pix.stepss", "did you mean steps?"),
        ("pix2pix.learning-rate", "did you mean learning_rate?"),
        ("trian", "did you mean train?"),
        ("fetch.demo.sed", "did you mean seed?"),
        ("submission.channel", "did you mean channels?"),
        ("zzzz", "known here: recipe, systems, fetch"),
        ("predict.qqqq", "known here: weights, batch_size, blend"),
        ("fetch.demo.pairs", "pairs_per_class"),
    ],
)
def test_an_unknown_key_is_named_with_a_suggestion(changed, key, hint):
    message = changed(key, 1)
    assert f"{key} is not a setting" in message and hint in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pix2pix.steps", True),
        ("pix2pix.steps", 400.0),
        ("pix2pix.steps", "400"),
        ("pix2pix.steps", [400]),
        ("pix2pix.steps", None),
        ("pix2pix.learning_rate", True),
        ("pix2pix.learning_rate", None),
        ("pix2pix.beta_1", False),
        ("fetch.archive", 5),
        ("fetch.archive", None),
        ("fetch.source", True),
        ("recipe", 1),
        ("submission.channels", None),
        ("fetch.demo.seed", 1.5),
        ("evaluate", 8),
        ("evaluate", None),
        ("fetch.demo", [1]),
        ("train", "none"),
    ],
)
def test_a_value_of_another_type_is_named(changed, key, value):
    message = changed(key, value)
    assert f"{key} is {value!r}: " in message


@pytest.mark.parametrize("key", ["pix2pix.learning_rate", "pix2pix.lambda_l1", "pix2pix.beta_1"])
@pytest.mark.parametrize("text", ["0.0003", "0,3", "small"])
def test_a_number_that_yaml_reads_as_text_is_explained(changed, key, text):
    message = changed(key, text)
    assert f"{key} is {text!r}, which YAML reads as text" in message
    assert "0.0003" in message and "3e-4" in message


@pytest.mark.parametrize("text", ["3e-4", "3.0e-4", "3E-4", "0.0003", "0.3e-3", "3e-04", "+3e-4"])
def test_a_number_is_read_in_every_notation_of_yaml_1_2(tmp_path, text):
    """`dvc exp run -S` writes 1e-05, which PyYAML takes for text."""
    params = (REPO / "params.yaml").read_text()
    assert "learning_rate: 0.0003" in params
    (tmp_path / "params.yaml").write_text(params.replace("learning_rate: 0.0003", f"learning_rate: {text}"))
    assert load_params(tmp_path / "params.yaml").pix2pix.learning_rate == 3e-4


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("fetch.demo.pairs_per_class", 0),
        ("fetch.demo.test_images", 0),
        ("fetch.demo.seed", -1),
        ("augment.shards", 0),
        ("augment.shards", 1001),
        ("augment.seed", -1),
        ("pix2pix.steps", 0),
        ("pix2pix.steps", -5),
        ("pix2pix.batch_size", 0),
        ("pix2pix.learning_rate", 0),
        ("pix2pix.learning_rate", -0.1),
        ("pix2pix.learning_rate", float("inf")),
        ("pix2pix.learning_rate", float("nan")),
        ("pix2pix.beta_1", 1),
        ("pix2pix.beta_1", -0.1),
        ("pix2pix.lambda_l1", -1),
        ("pix2pix.shuffle_buffer", 0),
        ("split.validation_pairs", -1),
        ("split.seed", -1),
        ("pix2pix.validate_every", 0),
        ("pix2pix.checkpoint_every", 0),
        ("pix2pix.filters", 0),
        ("pix2pix.filters", 65),
        ("pix2pix.lambda_gan", -1),
        ("pix2pix.lambda_l2", -0.5),
        ("residual.steps", 0),
        ("residual.weight_decay", -0.01),
        ("residual.average", 1),
        ("residual.blocks", 0),
        ("residual.rim_filters", 0),
        ("split.holdout_pairs", -1),
        ("residual.resolution", 96),
        ("residual.zoom", 0.9),
        ("residual.zoom", 5),
        ("vanilla_gan.beta_1", 1),
        ("vanilla_gan.filters", 65),
        ("cyclegan.lambda_cycle", -1),
        ("cyclegan.steps", 0),
        ("diffusion.rank", 0),
        ("diffusion.resolution", 100),
        ("diffusion.inference_steps", 0),
        ("diffusion.samples", 0),
        ("train.threads", 0),
        ("train.seed", -1),
        ("train.seed", 2**31),
        ("predict.batch_size", 0),
        ("match.twins", "yes"),
        ("evaluate.samples", 0),
    ],
)
def test_a_value_out_of_range_is_named(changed, key, value):
    assert f"{key} is {value!r}: input should be" in changed(key, value)


def test_diffusion_needs_a_model_to_start_from(changed):
    assert "diffusion.pretrained is '': string should have at least 1 character" in changed("diffusion.pretrained", "")


@pytest.mark.parametrize(
    ("key", "choice"),
    [
        ("fetch.source", "kaggle"),
        ("train.precision", "mixed_bfloat16"),
        ("train.strategy", "multi_worker"),
        ("cyclegan.generator", "unet"),
        ("diffusion.tune", "whole"),
        ("predict.weights", "last"),
        ("submission.channels", "bgr"),
        ("submission.scale", "unit"),
    ],
)
def test_a_value_that_is_no_choice_is_named_with_the_choices(changed, key, choice):
    message = changed(key, "other")
    assert f"{key} is 'other': input should be" in message and repr(choice) in message


@pytest.mark.parametrize(
    ("systems", "fault"),
    [
        (["pix2pix", "residuals"], f"there is no system 'residuals'; there are {', '.join(SYSTEMS)}"),
        (["residual", "residual"], "systems is ['residual', 'residual']: it names residual twice"),
        (["pix2pix", 1], "systems.1 is 1: input should be a valid string"),
        ([], "systems is []: "),
        ({"pix2pix": 1}, "systems is {'pix2pix': 1}: "),
        ("residual", "systems is 'residual': "),
        (None, "systems is None: "),
    ],
)
def test_a_list_of_systems_that_cannot_be_trained_is_refused(changed, systems, fault):
    assert fault in changed("systems", systems)


@pytest.mark.parametrize(
    "blend", ["fitted", {}, {"pix2pix": "1"}, {"pix2pix": True, "residual": 0}, None, 1.0, ["fit"]]
)
def test_weights_that_are_none_are_refused(changed, blend):
    assert f"predict.blend is {blend!r}: write fit, or a weight for each system" in changed("predict.blend", blend)


@pytest.mark.parametrize(
    "blend",
    [
        {"residual": 1.0},
        {"residual": 0.5, "pix2pix": 0.6},
        {"residual": 0.5, "pix2pix": 0.5, "gan": 0.0},
        {"residual": 1.0, "pix2pix": float("nan")},
    ],
)
def test_weights_for_other_systems_or_of_another_sum_are_refused(changed, blend):
    message = changed("predict.blend", blend)
    assert f"predict.blend is {blend}: give a weight for each of pix2pix, residual, with sum 1" in message


def test_without_validation_pairs_the_weights_of_several_systems_must_be_given(tmp_path, params_file):
    message = refusal_of(params_file(tmp_path, **{"split.validation_pairs": 0}))
    assert "predict.blend: fit needs validation pairs, but split.validation_pairs is 0" in message
    for changes in ({"systems": ["residual"]}, {"predict.blend": {"pix2pix": 0.5, "residual": 0.5}}):
        assert load_params(params_file(tmp_path, **{"split.validation_pairs": 0}, **changes))


@pytest.mark.parametrize("key", [*SETTINGS, *SECTIONS])
def test_a_missing_key_is_named(tmp_path, key):
    content = recipe("demo")
    *sections, last = key.split(".")
    del reduce(dict.__getitem__, sections, content)[last]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    assert refusal_of(tmp_path / "params.yaml").endswith(f"params.yaml: {key} is missing")


def test_every_fault_is_named_at_once(tmp_path, params_file):
    path = params_file(
        tmp_path, **{"pix2pix.steps": 0, "pix2pix.filter": 1, "submission.scale": 255, "augment.seed": None}
    )
    message = refusal_of(path)
    for fault in (
        "pix2pix.steps is 0",
        "pix2pix.filter is not a setting",
        "submission.scale is 255",
        "augment.seed is None",
    ):
        assert fault in message


def test_a_missing_file_says_where_to_look(tmp_path):
    message = refusal_of(tmp_path / "params.yaml")
    assert "is missing" in message and "repository's root" in message


@pytest.mark.parametrize("text", ["train: [1,", "\tsteps: 1", "a: b: c", "{", "'open", "a: \0", "a: *none", "!x"])
def test_what_is_no_yaml_is_refused(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    assert "is not readable YAML" in refusal_of(tmp_path / "params.yaml")


@pytest.mark.parametrize("value", ["2023-13-45", "0x_", "0b_"])
def test_a_scalar_that_yaml_cannot_make_is_refused(tmp_path, value):
    text = (REPO / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("recipe: demo", f"recipe: {value}"))
    assert "is not readable YAML" in refusal_of(tmp_path / "params.yaml")


def test_a_file_that_is_not_utf_8_is_refused(tmp_path):
    text = (REPO / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_bytes(text.replace("demo", "über").encode("latin-1"))
    assert "is not readable YAML" in refusal_of(tmp_path / "params.yaml")


@pytest.mark.parametrize("text", ["", "# nothing\n", "- fetch\n", "demo\n", "5\n", "null\n"])
def test_what_is_no_mapping_is_refused(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    assert "must hold these keys: recipe, systems, fetch, split, augment" in refusal_of(tmp_path / "params.yaml")


def test_a_key_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "params.yaml").write_text((REPO / "params.yaml").read_text() + "\n1: 2\n")
    assert "keys should be strings" in refusal_of(tmp_path / "params.yaml")


def test_a_stage_ends_with_one_line(tmp_path, params_file, run_stage):
    params_file(tmp_path, **{"fetch.demo.seeed": 1})
    done = run_stage("fetch", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "fetch: params.yaml: fetch.demo.seeed is not a setting (did you mean seed?)\n"
    assert [p.name for p in tmp_path.iterdir()] == ["params.yaml"]
