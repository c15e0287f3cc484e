"""The script that runs at Kaggle: it trains one system there and leaves the model, or checkpoints, in the output.

pipeline.remote fills in FACTS and PACKED and pushes it as a kernel. It uses the standard library alone, because the
packages of the pipeline are not installed there yet.
"""

import base64
import contextlib
import hashlib
import importlib.metadata
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any, NoReturn

# What is assumed about Kaggle. None of it could be tried there; look_around checks it first and logs what it finds.
INPUT = Path(os.environ.get("REMOTE_INPUT", "/kaggle/input"))
SOURCES = ("{name}", "competitions/{name}", "notebooks/*/{name}")  # where an attached source lies in it
OUTPUT = Path(os.environ.get("REMOTE_OUTPUT", "/kaggle/working"))  # what lies there at the end can be downloaded
SCRATCH = Path(os.environ.get("REMOTE_SCRATCH", "/tmp/train"))  # thrown away
LIMIT = float(os.environ.get("REMOTE_LIMIT", 12 * 3600 - 900))  # seconds; Kaggle ends a kernel after 12 hours
LARGEST_SOURCE = 1_000_000  # bytes of a kernel's source
ACCELERATOR = "NvidiaTeslaT4"  # Kaggle's name for two T4; NvidiaTeslaP100 is one P100
PYTHONS = ((3, 11), (3, 12), (3, 13))  # that the packages are pinned for

# Filled in by pipeline.remote: system, competition, key, params, data (path: md5), before (an earlier kernel or "").
FACTS: dict[str, Any] = {}
PACKED = ""  # the code: a tar.xz, in base85

STOPPING = 300.0  # seconds that a training gets to save a checkpoint, or DVC to store the model
START = time.monotonic()
CHECKSUM = (
    "import sys, pathlib; from pipeline.archive.unpack import checksum, contents; path = pathlib.Path(sys.argv[1])"
)


def main() -> None:
    archive, gpus = look_around()
    with tarfile.open(fileobj=io.BytesIO(base64.b85decode("".join(PACKED.split())))) as packed:
        packed.extractall(SCRATCH, filter="data")
    python = environment()
    write_settings(python, archive, gpus)
    take_checkpoints()
    dvc = [str(python), "-m", "dvc"]
    run([*dvc, "repro", "split", "augment"])
    check_data()
    finished = train(dvc)
    leave_output(finished)


def say(line: str) -> None:
    print(f"kernel: {line}", flush=True)


def fail(line: str) -> NoReturn:
    sys.exit(f"kernel: {line}")


def look_around() -> tuple[Path, int]:
    """The folder with the competition's files, and the number of GPUs; logs what this machine has."""
    say(f"Python {sys.version.split()[0]}, TensorFlow {installed('tensorflow') or 'not installed'}")
    say(f"{INPUT} has {', '.join(sorted(path.name for path in INPUT.glob('*'))) or 'nothing'}")
    free = shutil.disk_usage(SCRATCH.parent).free
    say(f"{free / 1e9:.0f} GB free in {SCRATCH.parent}; the training stops {LIMIT:.0f} s after the start")
    listed = (
        subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True) if shutil.which("nvidia-smi") else None
    )
    gpus = re.findall(r"^GPU \d+: ([^(\n]+)", listed.stdout if listed else "", re.MULTILINE)
    say(f"GPUs: {', '.join(name.strip() for name in gpus) or 'none, so the training will be slow'}")
    return attached(FACTS["competition"]), len(gpus)


def attached(name: str) -> Path:
    """The folder of a source that is attached to this kernel."""
    places = [INPUT / place.format(name=name) for place in SOURCES]
    found = [path for place in SOURCES for path in sorted(INPUT.glob(place.format(name=name)))]
    if not found:
        fail(f"{name} is not attached to this kernel: there is no {' and no '.join(map(str, places))}")
    return found[0]


def installed(name: str) -> str:
    """The installed version of a package; "" if there is none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def environment() -> Path:
    """A Python with the pinned packages; those that are missing are installed.

    Kaggle's own Python, if its TensorFlow is the pinned one; otherwise a new environment, with the libraries for GPUs.
    """
    files = [SCRATCH / "requirements.txt"]
    files += [SCRATCH / "requirements-diffusion.txt"] if FACTS["system"] == "diffusion" else []
    pinned = dict(re.findall(r"^([\w.-]+)==([^\s#]+)", "\n".join(path.read_text() for path in files), re.MULTILINE))
    missing = [name for name, version in pinned.items() if installed(name) != version]
    options = [f"--constraint={SCRATCH / 'constraints.txt'}", *(f"--requirement={path}" for path in files)]
    own = "tensorflow" not in missing and sys.version_info[:2] in PYTHONS
    if own and not missing:
        say("every pinned package is installed")
        return Path(sys.executable)
    say(f"installing {len(missing)} packages, {'beside' if own else 'and'} TensorFlow {pinned['tensorflow']}")
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    if own:
        run([*pip, *options])
        return Path(sys.executable)
    folder = SCRATCH.with_name(f"{SCRATCH.name}-python")
    run([*pip, "uv"])
    uv = [sys.executable, "-m", "uv"]
    run([*uv, "venv", "--quiet", "--python=3.12", str(folder)])
    gpu = f"--requirement={SCRATCH / 'requirements-gpu.txt'}"
    run([*uv, "pip", "install", "--quiet", "--compile-bytecode", f"--python={folder}/bin/python", *options, gpu])
    return folder / "bin" / "python"


def run(command: list[str]) -> None:
    """Run a command in SCRATCH; its output goes to this kernel's log."""
    say(" ".join(command))
    if status := subprocess.run(command, cwd=SCRATCH, env=variables(command)).returncode:
        fail(f"`{' '.join(command)}` failed with status {status}; its output is above")


def variables(command: list[str]) -> dict[str, str]:
    """The environment of a command: `python`, in DVC's stages too, is the Python that it starts with."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return kept | {"PATH": f"{Path(command[0]).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


def write_settings(python: Path, archive: Path, gpus: int) -> None:
    """Write params.yaml: the settings at home, but for where the data lies and on how many GPUs it trains."""
    params, system = FACTS["params"], FACTS["system"]
    fetch = params["fetch"] | {"source": "archive", "archive": str(archive)}
    if not fetch["checksum"]:
        code = f"{CHECKSUM}; print(checksum(path, contents(path)))"
        command = [str(python), "-c", code, str(archive)]
        done = subprocess.run(command, cwd=SCRATCH, env=variables(command), capture_output=True, text=True)
        fetch["checksum"] = done.stdout.strip() or fail(f"{archive} cannot be read: {done.stderr.strip()}")
    shared = gpus > 1 and system != "diffusion" and params[system]["batch_size"] % gpus == 0
    strategy = "mirrored" if shared else "none"
    say(f"train.strategy: {strategy}")
    changed = params | {"fetch": fetch, "train": params["train"] | {"strategy": strategy}}
    (SCRATCH / "params.yaml").write_text(json.dumps(changed))  # JSON is YAML
    (SCRATCH / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")


def take_checkpoints() -> None:
    """Copy the checkpoints that an earlier kernel left, if there is one."""
    if FACTS["before"]:
        shutil.copytree(attached(FACTS["before"]) / "checkpoints", checkpoints())
        say(f"going on from step {last_step()}, where {FACTS['before']} stopped")


def checkpoints() -> Path:
    return SCRATCH / ".work" / "checkpoints"


def last_step() -> int:
    """The step of the latest checkpoint; 0 without one."""
    return max((int(path.stem.removeprefix("step-")) for path in checkpoints().glob("*/step-*.npz")), default=0)


def check_data() -> None:
    """End if the images, the split or the shards are not those at home."""
    lock = (SCRATCH / "dvc.lock").read_text(encoding="utf-8")
    made = dict(re.findall(r"path: (\S+)\n\s+hash: md5\n\s+md5: (\S+)", lock))
    if other := [path for path, md5 in FACTS["data"].items() if made.get(path) != md5]:
        fail(f"{', '.join(other)} made here differ from those at home: is it the same archive?")
    say("images, split and shards are those at home")


def train(dvc: list[str]) -> bool:
    """Whether the training came to its end before LIMIT; otherwise it saved a checkpoint."""
    command = [*dvc, "repro", f"train@{FACTS['system']}"]
    say(" ".join(command))
    process = subprocess.Popen(command, cwd=SCRATCH, env=variables(command), process_group=0)
    try:
        status = process.wait(max(START + LIMIT - time.monotonic(), 0))
    except subprocess.TimeoutExpired:
        say(f"{LIMIT:.0f} s are over: the training saves a checkpoint")
        status = stop(process)
        if status and not last_step():
            fail("there is no checkpoint: the time was over before the training began")
        return status == 0
    if status:
        fail(f"the training failed with status {status}; its output is above")
    return True


def stop(dvc: subprocess.Popen) -> int:
    """Interrupt the training and wait for DVC, but not for ever; DVC's status.

    DVC is not interrupted: it may be storing the model, and would leave a lock file half-written.
    """
    until = time.monotonic() + STOPPING
    told = False
    while dvc.poll() is None and time.monotonic() < until:
        told = told or interrupt_training(dvc.pid)
        time.sleep(0.1)
    if dvc.poll() is None:
        os.killpg(dvc.pid, signal.SIGKILL)
    return dvc.wait()


def interrupt_training(group: int) -> bool:
    """Interrupt the training among the processes of a group; False before it begins and after its end."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ends meanwhile
            command, process = (folder / "cmdline").read_bytes().split(b"\0"), int(folder.name)
            if b"pipeline.train" in command and os.getpgid(process) == group:
                os.kill(process, signal.SIGINT)
                return True
    return False


def leave_output(finished: bool) -> None:
    """Write the output: the model, its curves and dvc.lock, or the checkpoints; last, result.json, which lists them."""
    system = FACTS["system"]
    if finished:
        shutil.copytree(SCRATCH / "data" / "model" / system, OUTPUT / "model")
        shutil.copytree(SCRATCH / "reports" / "curves" / system, OUTPUT / "curves")
        shutil.copy(SCRATCH / "dvc.lock", OUTPUT / "dvc.lock")
    else:
        shutil.copytree(checkpoints(), OUTPUT / "checkpoints")
    files = {path.relative_to(OUTPUT).as_posix(): path for path in sorted(OUTPUT.rglob("*")) if path.is_file()}
    sums = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    result = {"key": FACTS["key"], "finished": finished, "step": last_step(), "files": sums}
    (OUTPUT / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    say("done" if finished else f"stopped at step {last_step()}")


if __name__ == "__main__":
    main()
