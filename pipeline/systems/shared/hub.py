"""Pretrained weights: a local folder, or a repository of huggingface.co at one commit."""

import re
from contextlib import suppress
from functools import partial
from pathlib import Path

from pipeline.base.command import MACHINE_FAULTS
from pipeline.base.errors import BadInput

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
COMMIT = re.compile(r"[0-9a-f]{40}")


def locate(pretrained: str, revision: str, downloads: Path, files: tuple[str, ...] | None = None) -> Path:
    """The folder of the pretrained weights: `pretrained` itself, or the folder below `downloads` with its files.

    `files` are patterns of the needed files (None: all). Files that are already there need no network. Raises BadInput
    if `pretrained` is neither a folder nor a hub id with a commit, or if the download fails.
    """
    if Path(pretrained).is_dir():
        return Path(pretrained)
    if not HUB_ID.fullmatch(pretrained):
        raise BadInput(f"pretrained is {pretrained!r}: neither a folder here nor a hub id such as keras-io/CycleGAN")
    if not COMMIT.fullmatch(revision):
        raise BadInput(
            f"pretrained is the hub id {pretrained} and its revision {revision!r}: set revision to the 40 hexadecimal "
            f"digits of a commit, listed at https://huggingface.co/{pretrained}/commits/main"
        )
    return download(pretrained, revision, downloads, files)


def download(hub_id: str, commit: str, downloads: Path, files: tuple[str, ...] | None) -> Path:
    """The folder of a repository's files, downloaded if they are not there. Raises BadInput if that fails."""
    from huggingface_hub import snapshot_download  # here, because the import is slow and most trainings do not need it
    from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError

    fetch = partial(snapshot_download, hub_id, revision=commit, cache_dir=downloads, allow_patterns=files)
    with suppress(LocalEntryNotFoundError):
        return Path(fetch(local_files_only=True))
    try:
        return Path(fetch())
    except (OSError, ValueError, HTTPError) as error:
        if getattr(error, "errno", None) in MACHINE_FAULTS:
            raise
        reason = str(error).strip().partition("\n")[0]
        raise BadInput(
            f"{hub_id} at {commit} is not in {downloads} and could not be downloaded ({reason}); connect to the "
            "network, or download it elsewhere and set pretrained to its folder"
        ) from None
