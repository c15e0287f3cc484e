"""params.yaml: every key there is, and that nothing else is taken."""

from functools import reduce
from pathlib import Path

import pytest
import yaml

from pipeline.base.errors import BadInput
from pipeline.params import check_params, load_params
from pipeline.recipe import BASE, merge

DEFAULTS = {
    "recipe": "demo",
    "fetch.source": "demo",
    "fetch.archive": "data/archive",
    "fetch.competition": "photo-reconstruction",
    "fetch.demo.pairs_per_class": 100,
    "fetch.demo.test_images": 200,
    "fetch.demo.seed": 2023,
    "augment.shards": 8,
    "augment.seed": 1,
    "pix2pix.learning_rate": 3e-4,
    "pix2pix.beta_1": 0.5,
    "pix2pix.lambda_l1": 1000.0,
    "pix2pix.lambda_gan": 1.0,
    "pix2pix.lambda_l2": 0.0,
    "pix2pix.loss": "image",
    "pix2pix.mask_channel": False,
    "pix2pix.random_holes": False,
    "pix2pix.shuffle_buffer": 1000,
    "pix2pix.filters": 64,
    "residual.learning_rate": 8e-4,
    "residual.weight_decay": 0.01,
    "residual.filters": 32,
    "residual.blocks": 1,
    "residual.zoom": 1.0,
    "residual.masked_images": False,
    "vanilla_gan.learning_rate": 2e-4,
    "vanilla_gan.beta_1": 0.5,
    "vanilla_gan.shuffle_buffer": 1000,
    "vanilla_gan.filters": 64,
    "cyclegan.generator": "resnet",
    "cyclegan.pretrained": "",
    "cyclegan.revision": "",
    "cyclegan.learning_rate": 2e-4,
    "cyclegan.beta_1": 0.5,
    "cyclegan.lambda_cycle": 10.0,
    "cyclegan.lambda_identity": 5.0,
    "cyclegan.shuffle_buffer": 1000,
    "cyclegan.filters": 64,
    "diffusion.pretrained": "sd2-community/stable-diffusion-2-inpainting",
    "diffusion.revision": "",
    "diffusion.tune": "lora",
    "diffusion.rank": 8,
    "diffusion.learning_rate": 1e-4,
    "diffusion.resolution": 512,
    "diffusion.prompt": "a photo of a {}",
    "diffusion.inference_steps": 20,
    "diffusion.samples": 1,
    "train.strategy": "none",
    "train.threads": 2,
    "train.seed": 7,
    "predict.weights": "best",
    "predict.blend": "fit",
    "predict.twins": True,
    "submission.channels": "bgr",
    "submission.scale": "minmax",
}
SCHEDULE = ["steps", "batch_size", "validate_every", "checkpoint_every"]
SYSTEMS = ["pix2pix", "residual", "vanilla_gan", "cyclegan", "diffusion"]
TUNED = [f"{system}.{name}" for system in SYSTEMS for name in SCHEDULE]
TUNED += ["train.validation_pairs", "residual.resolution"]
TUNED += ["predict.batch_size", "evaluate.samples"]  # counts that a recipe may choose freely
CHOSEN = ["systems", "train.precision", "residual.average"]  # and what is no count
SECTIONS = ["fetch", "augment", "train", *SYSTEMS, "predict", "submission", "evaluate"]
RECIPES = sorted(path.stem for path in (Path(__file__).parents[1] / "recipes").glob("*.yaml"))


def value_of(params, dotted):
    return reduce(getattr, dotted.split("."), params)


def recipe(repo, name):
    """A recipe, whole: the base with its changes."""
    content = yaml.safe_load((repo / "recipes" / f"{BASE}.yaml").read_text())
    merge(content, yaml.safe_load((repo / "recipes" / f"{name}.yaml").read_text()))
    return content


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


@pytest.mark.parametrize("key", DEFAULTS)
def test_a_key_has_its_default(repo, key):
    assert value_of(load_params(repo / "recipes" / "demo.yaml"), key) == DEFAULTS[key]


@pytest.mark.parametrize("key", TUNED)
def test_a_key_is_a_count(repo, key):
    value = value_of(load_params(repo / "recipes" / "demo.yaml"), key)
    assert type(value) is int and value >= 1


def test_the_precision_is_one_of_two(repo):
    precision = load_params(repo / "recipes" / "demo.yaml").train.precision
    assert precision in ("float32", "mixed_bfloat16")


def test_no_key_is_forgotten_here(repo):
    def flat(content, prefix=""):
        for key, value in content.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{key}.")
            else:
                yield prefix + key

    assert set(flat(recipe(repo, "demo"))) == {*DEFAULTS, *TUNED, *CHOSEN}


def test_the_repositorys_params_are_the_demo(repo):
    assert (repo / "params.yaml").read_text() == (repo / "recipes" / "demo.yaml").read_text()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_valid_and_says_its_name(repo, name):
    assert check_params(recipe(repo, name), name).recipe == name


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_leaves_the_source_and_the_submission_to_the_user(repo, name):
    params = check_params(recipe(repo, name), name)
    assert params.submission.channels == "bgr" and params.submission.scale == "minmax"
    assert params.fetch.archive == "data/archive" and params.fetch.competition == "photo-reconstruction"


def test_the_report_recipe_has_the_reports_settings(repo):
    params = check_params(recipe(repo, "report"), "report")
    pix2pix = params.pix2pix
    assert params.systems == ["pix2pix"] and params.train.precision == "float32"
    assert pix2pix.steps == 160_000
    assert (pix2pix.batch_size, pix2pix.learning_rate, pix2pix.beta_1, pix2pix.lambda_l1) == (1, 3e-4, 0.5, 1000)
    assert (pix2pix.shuffle_buffer, pix2pix.filters) == (1000, 64)


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


def test_settings_cannot_be_changed(repo):
    params = load_params(repo / "recipes" / "demo.yaml")
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
        ("predict.qqqq", "known here: weights, batch_size, blend, twins"),
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
@pytest.mark.parametrize("text", ["3e-4", "1e3", "0.0003", "0,3", "small"])
def test_a_number_that_yaml_reads_as_text_is_explained(changed, key, text):
    message = changed(key, text)
    assert f"{key} is {text!r}, which YAML reads as text" in message
    assert "0.0003" in message and "3.0e-4" in message


def test_3e_4_as_a_user_writes_it_is_explained(tmp_path, repo):
    text = (repo / "recipes" / "demo.yaml").read_text()
    assert "learning_rate: 0.0003" in text
    (tmp_path / "params.yaml").write_text(text.replace("learning_rate: 0.0003", "learning_rate: 3e-4"))
    assert "write 0.0003 or 3.0e-4" in refusal_of(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text(text.replace("learning_rate: 0.0003", "learning_rate: 3.0e-4"))
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
        ("train.validation_pairs", 0),
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
        ("predict.twins", "yes"),
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
        (
            ["pix2pix", "residuals"],
            "systems.1 is 'residuals': input should be 'pix2pix', 'residual', 'vanilla_gan', 'cyclegan' or 'diffusion'",
        ),
        (["residual", "residual"], "systems is ['residual', 'residual']: names a system twice"),
        (
            ["pix2pix", 1],
            "systems.1 is 1: input should be 'pix2pix', 'residual', 'vanilla_gan', 'cyclegan' or 'diffusion'",
        ),
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
    assert f"predict.blend is {blend}: it needs a weight for each of pix2pix, residual, 1 in all" in message


@pytest.mark.parametrize("key", [*DEFAULTS, *TUNED, *CHOSEN, *SECTIONS])
def test_a_missing_key_is_named(tmp_path, repo, key):
    content = recipe(repo, "demo")
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
def test_a_scalar_that_yaml_cannot_make_is_refused(tmp_path, repo, value):
    text = (repo / "recipes" / "demo.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("recipe: demo", f"recipe: {value}"))
    assert "is not readable YAML" in refusal_of(tmp_path / "params.yaml")


def test_a_file_that_is_not_utf_8_is_refused(tmp_path, repo):
    text = (repo / "recipes" / "demo.yaml").read_text()
    (tmp_path / "params.yaml").write_bytes(text.replace("demo", "über").encode("latin-1"))
    assert "is not readable YAML" in refusal_of(tmp_path / "params.yaml")


@pytest.mark.parametrize("text", ["", "# nothing\n", "- fetch\n", "demo\n", "5\n", "null\n"])
def test_what_is_no_mapping_is_refused(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    assert "must hold these keys: recipe, systems, fetch, augment" in refusal_of(tmp_path / "params.yaml")


def test_a_key_that_is_no_text_is_refused(tmp_path, repo):
    (tmp_path / "params.yaml").write_text((repo / "recipes" / "demo.yaml").read_text() + "\n1: 2\n")
    assert "keys should be strings" in refusal_of(tmp_path / "params.yaml")


def test_a_stage_ends_with_one_line(tmp_path, params_file, run_stage):
    params_file(tmp_path, **{"fetch.demo.seeed": 1})
    done = run_stage("fetch", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "fetch: params.yaml: fetch.demo.seeed is not a setting (did you mean seed?)\n"
    assert [p.name for p in tmp_path.iterdir()] == ["params.yaml"]
