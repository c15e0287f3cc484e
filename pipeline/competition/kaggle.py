"""The official kaggle client: the only file that imports it, and only inside the functions that need it."""

import io
import os
import sys
import zipfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from pipeline.base.errors import BadInput

NO_ACCOUNT = (
    "no Kaggle account is set up: create a token at https://www.kaggle.com/settings (API, Create New Token) and save "
    "it as ~/.kaggle/kaggle.json, or set KAGGLE_USERNAME and KAGGLE_KEY"
)


def client() -> Any:
    """An authenticated kaggle.KaggleApi. Raises BadInput where there are no credentials.

    Importing the package authenticates; without credentials it prints its help and closes stdin, so both are
    kept from it.
    """
    stdin = sys.stdin
    sys.stdin = io.StringIO()
    try:
        with redirect_stdout(io.StringIO()):
            from kaggle.api.kaggle_api_extended import KaggleApi

            api = KaggleApi()
            api.authenticate()
    except SystemExit:
        raise BadInput(NO_ACCOUNT) from None
    except OSError as error:  # every error of requests is one
        raise BadInput(f"Kaggle cannot be reached or refuses the credentials ({error})") from None
    finally:
        sys.stdin = stdin
    return api


def download(competition: str, folder: Path) -> Path:
    """The competition's zip in `folder`, whole; a download that was cut goes on where the server allows it.

    Raises BadInput naming what failed and the remedy. The client shows its own progress bar.
    """
    api = client()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{competition}.zip"
    try:
        with redirect_stdout(sys.stderr):
            api.competition_download_files(competition, path=os.fspath(folder), quiet=False)
    except OSError as error:
        raise BadInput(explain(competition, error)) from None
    if not path.exists():
        raise BadInput(
            f"kaggle.com sent no zip for {competition}; `kaggle competitions download -c {competition}` shows more"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        broken = str(error)
    if broken is not None:
        path.unlink()  # the client keeps a file of the right size, however broken it is inside
        raise BadInput(f"the download of {competition} arrived broken ({broken}) and was removed; run again")
    return path


def explain(competition: str, error: OSError) -> str:
    """What a failed request means for the user."""
    page = f"https://www.kaggle.com/competitions/{competition}"
    match getattr(getattr(error, "response", None), "status_code", None):
        case 401:
            return "Kaggle refuses the credentials (401): create a new token at https://www.kaggle.com/settings"
        case 403:
            return f"Kaggle refuses access to {competition} (403): join it and accept its rules at {page}/rules"
        case 404:
            return f"there is no competition {competition} (404): check fetch.competition against {page}"
        case 429:
            return "Kaggle asks to wait (429, too many requests): run again in a few minutes"
        case int(status):
            return f"Kaggle answers with an error ({status}); run again later"
    return f"the connection to Kaggle failed ({error}); run again, a cut download goes on where it stopped"
