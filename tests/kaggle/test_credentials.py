"""Where the account is found, with damaged files, and which of several Kaggle refuses."""

import base64
import json
import os
import time

import pytest

from pipeline.base.errors import BadInput
from pipeline.kaggle import client as kaggle
from pipeline.kaggle.credentials import find_account
from tools.kaggle_server.contest import LIST
from tools.kaggle_server.server import COMPETITION, refusal, reply, rpc

TOKEN_CHECK = rpc("IntrospectToken", "security.OAuthService")
KEY = b'{"username": "saved", "key": "secret"}'
GOOD = {"KAGGLE_USERNAME": "tester", "KAGGLE_KEY": "k3y"}


def submissions() -> list[kaggle.Submitted]:
    return list(kaggle.submissions(COMPETITION, time.monotonic() + 30))


def save(home, name: str, content: bytes):
    path = home / ".kaggle" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def basic(user: str, key: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{key}".encode()).decode()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_saved_key_is_used_in_any_encoding_of_json(server, account, encoding):
    save(account(credentials=False), "kaggle.json", KEY.decode().encode(encoding))
    server.answers[LIST] = reply({})
    assert submissions() == []
    assert server.asked(LIST)[0].headers["authorization"] == basic("saved", "secret")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged: it is empty"),
        (KEY[:-5], "is damaged: it is not JSON, or cut off"),
        (b"\xff\x00\xff", "is damaged: it is not JSON, or cut off"),
        (b'["saved", "secret"]', "is damaged: it is no JSON object with named values"),
        (b'"secret"', "is damaged: it is no JSON object with named values"),
        (b"{}", "has no username and key"),
        (b'{"username": "saved"}', "has no key"),
        (b'{"username": null, "key": "secret"}', "has no username"),
        (b'{"username": "", "key": "secret"}', "has no username"),
    ],
)
def test_a_damaged_key_file_is_named_with_its_remedy(server, account, content, message):
    path = save(account(credentials=False), "kaggle.json", content)
    with pytest.raises(BadInput) as error:
        submissions()
    remedy = f"create a new legacy key at https://www.kaggle.com/settings (API) and save the downloaded file as {path}"
    assert str(error.value) == f"{path} {message}; {remedy}"
    assert not server.requests


@pytest.mark.parametrize("name", ["kaggle.json", "access_token"])
def test_a_folder_in_place_of_a_file_is_named(account, name):
    path = account(credentials=False) / ".kaggle" / name
    path.mkdir(parents=True)
    with pytest.raises(BadInput, match="cannot be read .Is a directory.; make it a file that you can read") as error:
        find_account()
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    "content", [b"\xef\xbb\xbft0ken", "t0ken".encode("utf-16"), b"export T=t0ken", "tökén".encode()]
)
def test_a_token_that_cannot_be_sent_is_named_and_not_printed(account, content):
    path = save(account(), "access_token", content)
    with pytest.raises(BadInput, match="or another character that no token or key has; save it again") as error:
        find_account()
    assert str(error.value).startswith(str(path)) and "t0ken" not in str(error.value)


@pytest.mark.parametrize(
    ("variables", "saved", "message"),
    [
        ({"KAGGLE_USERNAME": "tester"}, None, "KAGGLE_USERNAME and KAGGLE_KEY belong together, but the key is not set"),
        ({"KAGGLE_USERNAME": "tester"}, b'{"username": "saved"}', "kaggle.json has no key"),
        ({"KAGGLE_USERNAME": "tester", "KAGGLE_KEY": "k3y\r"}, None, "KAGGLE_KEY holds a space"),
        ({"KAGGLE_API_TOKEN": "x" * 300}, KEY, "the token in KAGGLE_API_TOKEN is too long for the kaggle client: save"),
        ({"KAGGLE_CONFIG_DIR": "/nowhere"}, KEY, "legacy key as /nowhere/kaggle.json, or set"),
        ({}, None, "/home/.config/kaggle/kaggle.json, or set"),
    ],
)
def test_an_account_that_is_not_complete_is_reported(account, variables, saved, message):
    home = account(credentials=False, **variables)
    if saved:
        save(home, "kaggle.json", saved)
    with pytest.raises(BadInput) as error:
        find_account()
    assert message in str(error.value) and "xxx" not in str(error.value)


def test_without_an_account_nothing_is_sent_and_all_ways_to_set_one_up_are_named(server, account):
    home = account(credentials=False)
    with pytest.raises(
        BadInput, match=r"^no Kaggle account is set up: create a token at https://www.kaggle.com/set"
    ) as e:
        submissions()
    assert all(
        word in str(e.value) for word in (str(home / ".kaggle" / "access_token"), "KAGGLE_API_TOKEN", "KAGGLE_KEY")
    )
    assert not server.requests


@pytest.mark.parametrize(
    ("variables", "saved", "source"),
    [
        (GOOD, KEY, "KAGGLE_USERNAME and KAGGLE_KEY"),
        ({"KAGGLE_TOKEN": "not one of the client's"} | GOOD, None, "KAGGLE_USERNAME and KAGGLE_KEY"),
        ({}, KEY, "the key in {home}/.kaggle/kaggle.json"),
        ({"KAGGLE_USERNAME": "tester"}, KEY, "KAGGLE_USERNAME and the key in {home}/.kaggle/kaggle.json"),
    ],
)
def test_a_refused_key_is_named_by_its_place(server, account, variables, saved, source):
    home = account(credentials=False, **variables)
    if saved:
        save(home, "kaggle.json", saved)
    server.answers[LIST] = refusal(401, "Unauthorized")
    with pytest.raises(BadInput) as error:
        submissions()
    assert str(error.value) == (
        f"Kaggle refuses {source.format(home=home)} (401); "
        "create a new key or token at https://www.kaggle.com/settings (API)"
    )
    assert server.asked(LIST)[0].headers["authorization"].startswith("Basic ")


@pytest.mark.parametrize("answer", [refusal(401, "expired"), refusal(404), reply({"active": False})])
@pytest.mark.parametrize("place", ["KAGGLE_API_TOKEN", "access_token", "access_token.txt"])
def test_a_refused_token_is_named_although_there_is_a_good_key(server, account, place, answer):
    home = account(**({"KAGGLE_API_TOKEN": "t0ken"} if place.startswith("KAGGLE") else {}))
    where = place if place.startswith("KAGGLE") else save(home, place, b"t0ken\n")
    server.answers[TOKEN_CHECK] = answer
    with pytest.raises(BadInput) as error:
        submissions()
    reason = " (401): expired" if answer.status == 401 else ""
    assert str(error.value) == (
        f"Kaggle refuses the access token in {where}{reason}; "
        "replace it by a new one from https://www.kaggle.com/settings (API), or remove it to use a username and key"
    )
    assert not server.asked(LIST)


@pytest.mark.parametrize("in_file", [True, False])
def test_a_good_token_is_used_although_the_key_file_is_damaged(server, account, tmp_path, in_file):
    path = tmp_path / "token"
    path.write_text("t0ken\n", encoding="utf-8")
    save(account(credentials=False, KAGGLE_API_TOKEN=os.fspath(path) if in_file else "t0ken"), "kaggle.json", b"[]")
    server.answers[TOKEN_CHECK] = reply({"active": True, "username": "tester"})
    server.answers[LIST] = reply({})
    assert submissions() == []
    assert server.asked(LIST)[0].headers["authorization"] == "Bearer t0ken"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "{path} is damaged: it is no JSON object with named values; "),
        (b"{", "{path} is damaged: it is not JSON, or cut off; "),
        (b"{}", "{path} has no refresh_token; "),
        (
            b'{"refresh_token": "x", "access_token_expiration": "soon"}',
            "the kaggle client cannot use the login in {path} (ValueError",
        ),
        (b'{"refresh_token": "x"}', "Kaggle refuses the login in {path}; "),
    ],
)
def test_a_damaged_or_refused_login_is_named(server, account, content, message):
    path = save(account(credentials=False), "credentials.json", content)
    server.answers[rpc("GenerateAccessToken", "users.AccountService")] = refusal(401)
    with pytest.raises(BadInput, match="log in again with `kaggle auth login`") as error:
        submissions()
    assert str(error.value).startswith(message.format(path=path))


def test_a_saved_login_is_used(server, account):
    login = {"refresh_token": "x", "access_token": "t0ken", "access_token_expiration": "2100-01-01T00:00:00+00:00"}
    save(account(credentials=False), "credentials.json", json.dumps(login | {"username": "tester"}).encode())
    server.answers[LIST] = reply({})
    assert submissions() == []
    assert server.asked(LIST)[0].headers["authorization"] == "Bearer t0ken"
