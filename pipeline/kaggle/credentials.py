"""Where the kaggle client finds the account, read here because the client ignores or misreads a damaged file.

The client prefers an access token to a username and key, and those to the login that `kaggle auth login` saves.
"""

import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.base.errors import BadInput

SETTINGS = "https://www.kaggle.com/settings"
NAMES = ("username", "key")
WORD = "[!-~]+"  # printable ASCII without spaces: what fits in an HTTP header


@dataclass(frozen=True)
class Account:
    """The account that the client uses, and what to say if Kaggle refuses it."""

    source: str
    remedy: str
    values: dict[str, str]  # the username and key; empty if the client reads a token or a login itself


def find_account() -> Account:
    """The account that is set up. Raises BadInput if there is none or its file is damaged."""
    if place := find_token():
        remedy = f"replace it by a new one from {SETTINGS} (API), or remove it to use a username and key"
        return Account(f"the access token in {place}", remedy, {})
    path = key_file()
    given = {name: os.environ.get(f"KAGGLE_{name.upper()}", "") for name in NAMES}
    saved = {} if all(given.values()) else read_object(path, download_again(path))
    values = {name: given[name] or text_in(saved, name) for name in NAMES}
    places = {name: f"KAGGLE_{name.upper()}" if given[name] else f"the {name} in {path}" for name in NAMES}
    if all(values.values()):
        for name in NAMES:
            check_word(values[name], places[name])
        source = " and ".join(places.values()) if any(given.values()) else f"the key in {path}"
        return Account(source, f"create a new key or token at {SETTINGS} (API)", values)
    login = home() / "credentials.json"
    if login.exists() and not any(values.values()):
        remedy = "log in again with `kaggle auth login`"
        if not text_in(read_object(login, remedy), "refresh_token"):
            raise BadInput(f"{login} has no refresh_token; {remedy}")
        return Account(f"the login in {login}", remedy, {})
    raise BadInput(missing(path, given, values))


def missing(path: Path, given: dict[str, str], values: dict[str, str]) -> str:
    """The message for an account without a username or a key; `given` are those from the environment."""
    absent = " and ".join(name for name in NAMES if not values[name])
    if path.exists():
        return f"{path} has no {absent}; {download_again(path)}"
    if any(given.values()):
        return f"KAGGLE_USERNAME and KAGGLE_KEY belong together, but the {absent} is not set; set both"
    return (
        f"no Kaggle account is set up: create a token at {SETTINGS} (API) and save it as {home() / 'access_token'}, "
        f"or save the kaggle.json of a legacy key as {path}, or set KAGGLE_API_TOKEN, or KAGGLE_USERNAME and KAGGLE_KEY"
    )


def home() -> Path:
    return Path("~/.kaggle").expanduser()


def key_file() -> Path:
    """Where the client looks for kaggle.json."""
    if folder := os.environ.get("KAGGLE_CONFIG_DIR"):
        return Path(folder) / "kaggle.json"
    if home().exists() or not sys.platform.startswith("linux"):
        return home() / "kaggle.json"
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "kaggle" / "kaggle.json"


def download_again(path: Path) -> str:
    return f"create a new legacy key at {SETTINGS} (API) and save the downloaded file as {path}"


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """The object in a file, in any encoding of JSON; empty without such a file. Raises BadInput if it is damaged."""
    try:
        content = path.read_bytes()
        saved = json.loads(content)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); make it a file that you can read") from None
    except ValueError:
        what = "not JSON, or cut off" if content.strip() else "empty"
        raise BadInput(f"{path} is damaged: it is {what}; {remedy}") from None
    if not isinstance(saved, dict):
        raise BadInput(f"{path} is damaged: it is no JSON object with named values; {remedy}")
    return saved


def text_in(saved: dict[str, Any], name: str) -> str:
    """A value of the object; "" if it is missing or not text."""
    value = saved.get(name)
    return value if isinstance(value, str) else ""


def find_token() -> str:
    """The variable or file with the access token that the client would send; "" if there is none.

    Raises BadInput if the client could not send it.
    """
    value = os.environ.get("KAGGLE_API_TOKEN", "")
    try:
        is_path = bool(value) and Path(value).exists()
    except OSError:  # longer than a path may be; the client fails on it too
        remedy = "save it in a file and set KAGGLE_API_TOKEN to the file's path"
        raise BadInput(f"the token in KAGGLE_API_TOKEN is too long for the kaggle client: {remedy}") from None
    files = [Path(value)] if is_path else [home() / "access_token", home() / "access_token.txt"]
    if {"KAGGLE_KERNEL_RUN_TYPE", "KAGGLE_DATA_PROXY_URL", "KAGGLE_API_V1_TOKEN"} <= os.environ.keys():
        files.insert(0, Path(os.environ["KAGGLE_API_V1_TOKEN"]))  # in a notebook at Kaggle
    elif value and not is_path:
        check_word(value, "KAGGLE_API_TOKEN")
        return "KAGGLE_API_TOKEN"
    return next((str(path) for path in files if token_in(path)), "")


def token_in(path: Path) -> str:
    """The token in a file; "" if the file is missing or empty."""
    try:
        token = path.read_bytes().decode("utf-8", "replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); make it a file that you can read") from None
    if token:
        check_word(token, str(path))
    return token


def check_word(value: str, place: str) -> None:
    """Raise BadInput if a token, name or key has characters that cannot be sent."""
    if not re.fullmatch(WORD, value):
        what = "a space, a byte order mark or another character that no token or key has"
        raise BadInput(f"{place} holds {what}; save it again as plain text, or remove it")
