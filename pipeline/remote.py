"""Train a system on Kaggle's GPUs and bring its model back: `python -m pipeline.remote residual`."""

import argparse
import base64
import hashlib
import json
import lzma
import math
import re
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from typing import Any

from pipeline import paths
from pipeline.base.command import lock, run
from pipeline.base.errors import BadInput
from pipeline.base.files import replacing, sha256
from pipeline.base.progress import say
from pipeline.history import repo, stage
from pipeline.kaggle import kernels, on_kaggle
from pipeline.params import SYSTEMS, load_params, read_yaml
from pipeline.systems.card import read_card

# What the kernel gets of HEAD; params.yaml goes with the facts.
REQUIREMENTS = ("requirements.txt", "requirements-gpu.txt", "requirements-diffusion.txt", "constraints.txt")
CODE = ("pipeline", "dvc.yaml", *REQUIREMENTS, ".dvc/config", ".dvcignore", ".gitignore", "data/.gitignore")
DATA = (paths.RAW, paths.SPLIT, paths.AUGMENTED)  # the kernel makes them again and checks that they are the same
FIRST_ANSWER = 10.0  # seconds to wait for the network before there is anything to wait for
LINE = 120  # characters a line of the packed code
RESULT = "result.json"
BROUGHT_BACK = r"^(dvc\.lock|(model|curves)/\w[\w.]*)$"
ELSEWHERE = "train.strategy"  # the one setting that the kernel may change: it depends on its GPUs


@dataclass(frozen=True)
class Job:
    """One training at Kaggle."""

    system: str
    competition: str
    inputs: stage.Inputs  # of its stage, when the command started
    accelerator: str
    until: float  # the deadline, on time.monotonic's clock

    @property
    def stage(self) -> str:
        return stage_of(self.system)

    @property
    def key(self) -> str:
        """Of code, settings and data: another command with the same ones finds the same kernels."""
        return hashlib.sha256(json.dumps(self.inputs, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def folder(self) -> Path:
        return paths.WORK / "remote" / self.slug(1)

    def slug(self, part: int) -> str:
        """The kernel's slug; a training that needs more time than one kernel has goes on in the next part."""
        return f"train-{self.system.replace('_', '-')}-{self.key}" + (f"-{part}" if part > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(prog="remote", description=__doc__)
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("--accelerator", default=on_kaggle.ACCELERATOR, help="Kaggle's name; default: %(default)s")
    parser.add_argument("--deadline", type=float, default=math.inf, metavar="SECONDS", help="stop waiting after these")
    parser.add_argument("--again", action="store_true", help="push again what failed or was cancelled")
    arguments = parser.parse_args()
    if not arguments.deadline > 0:
        parser.error("--deadline must be more than 0 seconds")

    until = time.monotonic() + arguments.deadline
    competition, name = check(arguments.system), stage_of(arguments.system)
    if not (stale := repo.stale(name)):
        say(f"remote: {name} is up to date; nothing to train")
        return
    if others := sorted(set(stale) - {name}):
        raise BadInput(f"{', '.join(others)} must be up to date first: `dvc repro split augment`")
    inputs = stage.inputs_now(name)
    job = Job(arguments.system, competition, inputs, arguments.accelerator, until)
    with alone(job.folder):
        place(job, train(job, arguments.again))


def stage_of(system: str) -> str:
    return f"train@{system}"


def check(system: str) -> str:
    """The competition that is trained on. Raises BadInput if the settings or the commit do not allow it at Kaggle."""
    params = load_params()
    if system not in params.systems:
        raise BadInput(f"`systems` in {paths.PARAMS} does not list {system}; add it, commit, and run again")
    if params.fetch.source == "demo":
        raise BadInput(
            "fetch.source is demo, but Kaggle has the real competition: `python -m pipeline.recipe laptop --archive "
            "photo-reconstruction.zip`, or another recipe, then commit"
        )
    code = (*CODE, paths.PARAMS.as_posix())
    if changed := [name for name in repo.uncommitted() if name.startswith(code)]:
        raise BadInput(f"{', '.join(changed[:5])} changed since the commit: `git add -A && git commit` first")
    return params.fetch.competition


def alone(folder: Path) -> ExitStack:
    """Lock the folder of a training. Raises BadInput if another command waits for the same one."""
    folder.mkdir(parents=True, exist_ok=True)
    locked = ExitStack()
    try:
        locked.enter_context(lock(str(folder)))
    except BadInput:
        raise BadInput("another command is waiting for this training; it will bring the model back") from None
    return locked


def train(job: Job, again: bool) -> Path:
    """Push the training unless Kaggle has it, and follow it until it is finished: the folder of the kernel's output.

    Where its time ran out, the next kernel goes on from its checkpoints.
    """
    part, step = 1, 0
    while True:
        slug = job.slug(part)
        found = kernels.state(job.competition, slug, min(job.until, time.monotonic() + FIRST_ANSWER))
        if found is None or (again and failed(found[0])):
            push(job, part)
            again = False
        else:
            say(f"remote: {kernels.page(slug)} was pushed before")
        wait(job, slug)
        result = bring(job, slug)
        if result["finished"]:
            return job.folder / "output"
        if result["step"] <= step:
            raise BadInput(f"{kernels.page(slug)} did not go on from step {step}; its log says why")
        part, step = part + 1, result["step"]
        say(f"remote: the time of {kernels.page(slug)} ran out at step {step}; the next kernel goes on")


def failed(status: str) -> bool:
    return status not in (*kernels.UNDER_WAY, "COMPLETE")


def push(job: Job, part: int) -> None:
    """Push a part of the training as a kernel."""
    before = job.slug(part - 1) if part > 1 else ""
    facts = {
        "system": job.system,
        "competition": job.competition,
        "key": job.key,
        "params": read_yaml(paths.PARAMS.read_text(encoding="utf-8")),
        "data": {path.as_posix(): job.inputs[path.as_posix()] for path in DATA if path.as_posix() in job.inputs},
        "before": before,
    }
    source = fill_in(Path(on_kaggle.__file__).read_text(encoding="utf-8"), facts, pack(job.folder))
    slug = job.slug(part)
    kernels.push(job.folder, kernels.describe(slug, job.competition, before), source, job.accelerator)
    say(f"remote: pushed {len(source.encode()) / 1000:.0f} kB to {kernels.page(slug)}")


def pack(folder: Path) -> str:
    """The code of HEAD that the kernel needs, as a tar.xz in lines of base85."""
    tar = folder / "code.tar"
    repo.git("-c", "core.autocrlf=false", "archive", "--format=tar", f"--output={tar}", "HEAD", "--", *CODE)
    text = base64.b85encode(lzma.compress(tar.read_bytes(), preset=9)).decode()
    tar.unlink()
    return "\n".join(text[start : start + LINE] for start in range(0, len(text), LINE))


def fill_in(script: str, facts: dict[str, Any], packed: str) -> str:
    """The script of on_kaggle.py with its two blanks filled in."""
    for blank, value in (
        ("FACTS: dict[str, Any] = {}", f"FACTS = {facts!r}"),
        ('PACKED = ""', f'PACKED = """{packed}"""'),
    ):
        head, tail = script.split(f"\n{blank}", 1)
        script = f"{head}\n{value}{tail}"
    return script


def wait(job: Job, slug: str) -> None:
    """Show a kernel's log until it is complete. Raises BadInput if it fails; Ctrl-C leaves it running."""
    try:
        status, reason = kernels.follow(job.competition, slug, job.until, say)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"while {kernels.page(slug)} runs on") from None
    if failed(status):
        why = f": {reason}" if reason else ""
        what = "was cancelled" if status.startswith("CANCEL") else "failed"
        remedy = "its log is above; correct what it says, then run again with --again"
        raise BadInput(f"the kernel {kernels.page(slug)} {what}{why}; {remedy}")


def bring(job: Job, slug: str) -> dict[str, Any]:
    """Download a kernel's output to job.folder, if the training is finished, and check it: what result.json says."""
    with replacing(job.folder / "output") as folder:
        kernels.fetch(job.competition, slug, folder, rf"^{re.escape(RESULT)}$")
        result = read_result(folder / RESULT, slug)
        if result["finished"]:
            kernels.fetch(job.competition, slug, folder, BROUGHT_BACK)
            for name, digest in result["files"].items():
                if not (folder / name).is_file() or sha256(folder / name) != digest:
                    raise BadInput(f"{name} in the output of {kernels.page(slug)} is missing or damaged; run again")
    return result


def read_result(path: Path, slug: str) -> dict[str, Any]:
    """What a kernel says of its output. Raises BadInput if it is missing or damaged."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        if not {"finished", "step", "files"} <= set(result):
            raise ValueError("it lacks entries")
        return result
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(
            f"the output of {kernels.page(slug)} has no usable {RESULT} ({error}); run again, or with --again if it "
            "stays so"
        ) from None


def place(job: Job, output: Path) -> None:
    """Put model and curves in place and have DVC record them. Raises BadInput if they are of another training."""
    card = read_card(output / "model")
    with lock("."):  # no stage may read or write them now
        check_output(job, output, card)
        with replacing(paths.MODELS / job.system) as model, replacing(paths.CURVES / job.system) as curves:
            copytree(output / "model", model)
            copytree(output / "curves", curves)
        stage.commit(job.stage)
    say(
        f"remote: {paths.MODELS / job.system} is in place, trained on {card['devices']} in "
        f"{card['settings']['precision']}; `dvc repro` goes on from it"
    )


def check_output(job: Job, output: Path, card: dict[str, Any]) -> None:
    """Raise BadInput if what lies here now is not what the kernel trained with, or if the card is of another model."""
    trained = stage.inputs_in(read_yaml((output / "dvc.lock").read_text(encoding="utf-8")), job.stage)
    differ = [name for name in stage.differences(stage.inputs_now(job.stage), trained) if name != ELSEWHERE]
    if differ:
        raise BadInput(
            f"the model that Kaggle trained is not placed: {', '.join(differ)} here differ from what it was trained "
            "with; restore them, or run again to train with those here"
        )
    settings = {"system": card["model"], "split": card["split"], **card["settings"]}
    here = trained[job.system] | {name: trained["train"][name] for name in ("threads", "seed")}
    here |= {"system": job.system, "split": sha256(paths.SPLIT)}
    odd = [name for name, value in here.items() if settings.get(name) != value]
    odd += [name for name, digest in card["weights"].items() if sha256(output / "model" / name) != digest]
    if odd:
        raise BadInput(f"the model that Kaggle trained is not placed: its card differs in {', '.join(odd)}; run again")


if __name__ == "__main__":
    run("remote", main, again="the same command")
