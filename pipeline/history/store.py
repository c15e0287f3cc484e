"""Take what a commit's dvc.lock names from DVC's cache or remote into a clone."""

from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo

from pipeline.base.errors import BadInput
from pipeline.history.clone import NO_REMOTE, run_dvc


def restore(tree: Path, outputs: dict[str, str]) -> list[str]:
    """Bring the missing ones of `outputs`, path -> md5, into a clone; those that neither cache nor remote has.

    Raises BadInput if the remote refuses or cannot be reached.
    """
    for command in (("checkout", "--allow-missing"), ("pull", "--allow-missing")):
        if missing := absent(tree, outputs):
            run_dvc(tree, *command, *missing)
    missing = absent(tree, outputs)
    if missing and (fault := remote_fault(tree, outputs[missing[0]])):
        raise BadInput(
            f"DVC's cache lacks {missing[0]}, and its remote does not answer ({fault}): mend the remote, or make "
            "everything again, which trains again, with --from-scratch"
        )
    return missing


def absent(tree: Path, outputs: dict[str, str]) -> list[str]:
    """The paths that do not exist in a clone."""
    return [path for path in outputs if not (tree / path).exists()]


def remote_fault(tree: Path, md5: str) -> str:
    """Why the default remote cannot tell whether it has an object; "" if it can, or if there is no remote.

    DVC itself takes a remote that refuses for one that lacks the object.
    """
    try:
        with Repo(str(tree)) as repo:
            if repo.config["core"].get("remote") == NO_REMOTE:
                return ""
            remote = repo.cloud.get_remote()
            if remote.fs.protocol == "local" and not Path(remote.path).is_dir():
                return f"{remote.path} is missing"
            store = repo.cloud.get_remote_odb()
            store.fs.info(store.oid_to_path(md5))
    except FileNotFoundError as error:
        answer = error.__cause__  # of an HTTP server: fsspec raises FileNotFoundError whatever it was
        return "" if answer is None or getattr(answer, "status", None) == 404 else one_line(answer)
    except (DvcException, OSError, ImportError, ValueError) as error:
        return one_line(error)
    return ""


def one_line(error: BaseException) -> str:
    """An error's text on one line."""
    return " ".join(str(error).split()) or type(error).__name__
