"""Pretrained weights: in a folder here, or in a repository of huggingface.co at one commit."""

import re
from contextlib import suppress
from functools import partial
from pathlib import Path

from pipeline.base.command import MACHINE_FAULTS
from pipeline.base.errors import BadInput

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
COMMIT = re.compile(r"[0-9a-f]{40}")


def locate(pretrained: str, revision: str, downloads: Path, files: tuple[str, ...] | None = None) -> Path:
    """The folder with pretrained weights: `pretrained` itself, or where its files of that commit lie under `downloads`.

    `files` are the patterns of those that are needed (None: all); what is there already is not downloaded again, and
    needs no network. Raises BadInput where it is neither a folder nor a hub id, where a hub id comes without a commit,
    and where the hub cannot be reached or does not have it.
    """
    if Path(pretrained).is_dir():
        return Path(pretrained)
    if not HUB_ID.fullmatch(pretrained):
        raise BadInput(f"pretrained is {pretrained!r}: no such folder here, nor a hub id as keras-io/CycleGAN")
    if not COMMIT.fullmatch(revision):
        raise BadInput(
            f"pretrained is {pretrained}, no folder here but a hub id, and its revision {revision!r}: write the 40 "
            f"hexadecimal digits of a commit, as https://huggingface.co/{pretrained}/commits/main lists them"
        )
    return download(pretrained, revision, downloads, files)


def download(hub_id: str, commit: str, downloads: Path, files: tuple[str, ...] | None) -> Path:
    """The folder of a repository's files, downloaded unless they are there. Raises BadInput where they cannot be."""
    from huggingface_hub import snapshot_download  # here: it takes a while, and most trainings need none of it
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
