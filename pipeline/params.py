"""params.yaml, typed and strict: a section per stage and system, every key known, every value in its range."""

import difflib
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML, YAMLError

from pipeline.base.errors import BadInput
from pipeline.paths import PARAMS

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Turn = Literal["original", "flip", "rot90", "rot180", "rot270"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def check_systems(names: list[str]) -> list[str]:
    """The list, unchanged. Raises ValueError if it names an unknown system or one twice."""
    if unknown := [name for name in names if name not in SYSTEMS]:
        raise ValueError(f"there is no system {unknown[0]!r}; there are {', '.join(SYSTEMS)}")
    return check_unique(names)


def check_unique(names: list[str]) -> list[str]:
    """The list, unchanged. Raises ValueError if it names something twice."""
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"it names {twice[0]} twice")
    return names


def check_weights(value: Any) -> Any:
    """The value, unchanged. Raises ValueError unless it is "fit" or a number for each of some names."""
    numbers = list(value.values()) if isinstance(value, dict) else []
    if value != "fit" and not (numbers and all(type(number) in (int, float) for number in numbers)):
        raise ValueError("write fit, or a weight for each system, as {pix2pix: 0.25, residual: 0.75}")
    return value


class Section(BaseModel):
    """Refuses unknown keys and values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Demo(Section):
    pairs_per_class: Count
    test_images: Count
    seed: Seed


class Fetch(Section):
    source: Literal["demo", "archive", "kaggle"]
    archive: str
    checksum: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")]
    competition: str
    demo: Demo


class Split(Section):
    validation_pairs: Annotated[int, Field(ge=0)]
    holdout_pairs: Annotated[int, Field(ge=0)]
    seed: Seed


class Augment(Section):
    turns: Annotated[list[Turn], Field(min_length=1), AfterValidator(check_unique)]
    shards: Annotated[int, Field(ge=1, le=1000)]
    seed: Seed


class Train(Section):
    strategy: Literal["none", "mirrored", "multi_worker"]
    precision: Literal["float32", "mixed_bfloat16"]
    threads: Annotated[int, Field(ge=1, le=256)]
    seed: Seed


class SystemSettings(Section):
    """What every system has. A section that derives from it makes its name in Params a system."""

    steps: Count
    batch_size: Count
    validate_every: Count
    checkpoint_every: Count


class Pix2pix(SystemSettings):
    learning_rate: Positive
    beta_1: Annotated[float, Field(ge=0, lt=1)]
    lambda_gan: NotNegative
    lambda_l1: NotNegative
    lambda_l2: NotNegative
    loss: Literal["image", "holes"]
    mask_channel: bool
    random_holes: bool
    shuffle_buffer: Count
    filters: Annotated[int, Field(ge=1, le=64)]


class Residual(SystemSettings):
    learning_rate: Positive
    weight_decay: NotNegative
    average: Annotated[float, Field(ge=0, lt=1)]
    filters: Annotated[int, Field(ge=1, le=256)]
    blocks: Annotated[int, Field(ge=1, le=16)]
    resolution: Literal[64, 128]
    rim_filters: Annotated[int, Field(ge=1, le=256)]
    zoom: Annotated[float, Field(ge=1, le=4)]
    masked_images: bool


class VanillaGan(SystemSettings):
    learning_rate: Positive
    beta_1: Annotated[float, Field(ge=0, lt=1)]
    shuffle_buffer: Count
    filters: Annotated[int, Field(ge=1, le=64)]


class CycleGan(SystemSettings):
    generator: Literal["resnet", "unet"]
    pretrained: str
    revision: str
    learning_rate: Positive
    beta_1: Annotated[float, Field(ge=0, lt=1)]
    lambda_cycle: NotNegative
    lambda_identity: NotNegative
    shuffle_buffer: Count
    filters: Annotated[int, Field(ge=1, le=64)]


class Diffusion(SystemSettings):
    pretrained: Annotated[str, Field(min_length=1)]
    revision: str
    tune: Literal["lora", "whole"]
    rank: Annotated[int, Field(ge=1, le=256)]
    learning_rate: Positive
    resolution: Annotated[int, Field(ge=64, le=1024, multiple_of=64)]
    prompt: str
    inference_steps: Annotated[int, Field(ge=1, le=1000)]
    samples: Annotated[int, Field(ge=1, le=64)]
    noise_seed: Seed


class Match(Section):
    twins: bool


class Predict(Section):
    weights: Literal["best", "last"]
    batch_size: Count
    blend: Annotated[Literal["fit"] | dict[str, float], BeforeValidator(check_weights)]


class Submission(Section):
    channels: Literal["bgr", "rgb"]
    scale: Literal["minmax", "unit"]


class Evaluate(Section):
    samples: Annotated[int, Field(ge=1, le=64)]
    test_samples: Count


class Params(Section):
    recipe: str
    systems: Annotated[list[str], Field(min_length=1), AfterValidator(check_systems)]
    fetch: Fetch
    split: Split
    augment: Augment
    train: Train
    pix2pix: Pix2pix
    residual: Residual
    vanilla_gan: VanillaGan
    cyclegan: CycleGan
    diffusion: Diffusion
    match: Match
    predict: Predict
    submission: Submission
    evaluate: Evaluate


SYSTEMS = tuple(
    name
    for name, field in Params.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, SystemSettings)
)


def load_params(path: Path = PARAMS) -> Params:
    """params.yaml, checked. Raises BadInput naming every key that is unknown, absent or of the wrong type."""
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path} is missing; run from the repository's root, or `make recipe RECIPE=demo`") from None
    except (YAMLError, ValueError) as error:
        raise BadInput(f"{path} is not readable YAML: {' '.join(str(error).split())}") from None
    return check_params(content, str(path))


def check_params(content: Any, name: str) -> Params:
    """Settings as parsed from YAML, checked as load_params does; `name` stands in the message."""
    if not isinstance(content, dict):
        raise BadInput(f"{name} must hold these keys: {', '.join(Params.model_fields)}")
    try:
        params = Params.model_validate(content)
    except ValidationError as error:
        raise BadInput(f"{name}: " + "; ".join(explain(fault) for fault in error.errors())) from None
    check_blend(params, name)
    return params


def read_yaml(text: str) -> Any:
    """Parse YAML 1.2, as DVC does: 1e-05 is a number. Raises YAMLError or ValueError."""
    return YAML(typ="safe", pure=True).load(text)


def check_blend(params: Params, name: str) -> None:
    """Raises BadInput if predict.blend does not fit the systems and the split."""
    blend, systems = params.predict.blend, ", ".join(params.systems)
    if blend != "fit" and (set(blend) != set(params.systems) or not math.isclose(sum(blend.values()), 1)):
        raise BadInput(f"{name}: predict.blend is {blend}: give a weight for each of {systems}, with sum 1")
    if blend == "fit" and len(params.systems) > 1 and not params.split.validation_pairs:
        raise BadInput(
            f"{name}: predict.blend: fit needs validation pairs, but split.validation_pairs is 0; give predict.blend a "
            f"weight for each of {systems}"
        )


def explain(fault: dict[str, Any]) -> str:
    """One fault in pydantic's list as a sentence that names the key and the remedy."""
    *path, last = (str(part) for part in fault["loc"])
    key = ".".join([*path, last])
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(last, known_keys(path), n=1)
        hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known_keys(path))}"
        return f"{key} is not a setting ({hint})"
    if fault["type"] == "missing":
        return f"{key} is missing"
    value = fault["input"]
    if isinstance(value, str) and fault["type"] == "float_type":
        return f"{key} is {value!r}, which YAML reads as text, not as a number; write 0.0003 or 3e-4, without quotes"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{key} is {value!r}: {message[0].lower()}{message[1:]}"


def known_keys(path: list[str]) -> list[str]:
    """The keys of the section at `path`."""
    section: type[BaseModel] = Params
    for part in path:
        section = section.model_fields[part].annotation  # type: ignore[assignment]
    return list(section.model_fields)
