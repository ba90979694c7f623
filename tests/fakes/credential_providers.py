"""Every way to give a worker credentials, and a server on 127.0.0.1 that hands them out."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiobotocore.credentials import AioSSOProvider
from aiohttp import web


class Aws:
    """STS, SSO, both metadata services and DynamoDB in one; keeps which keys calls were signed with.

    Attributes:
        fault: What is wrong with everything that gives credentials: `500`, `garbage`, `expired`, `hangs`; or nothing.
        lives_s: How long the credentials given live, seconds.
        role: Of the instance; empty: it has none.
        answers_after_s: How long whatever gives credentials takes, seconds.
    """

    def __init__(self) -> None:
        self.given = 0
        self.fault = ""
        self.lives_s = 3600.0
        self.role = "worker"
        self.answers_after_s = 0.0
        self.signed: list[str] = []
        self.asked: list[str] = []

    def _keys(self) -> tuple[str, str]:
        self.given += 1
        lives_s = -3600.0 if self.fault == "expired" else self.lives_s
        return f"KEY{self.given}", (datetime.now(UTC) + timedelta(seconds=lives_s)).strftime("%Y-%m-%dT%H:%M:%SZ")

    async def _fail(self) -> web.Response:
        self.asked.append("in vain")
        if self.fault == "hangs":
            await asyncio.Event().wait()
        return web.Response(status=500 if self.fault == "500" else 200, text="<html>what?</html>")

    def _instance(self, request: web.Request) -> web.Response:
        """Answer as an instance's metadata service does."""
        folder = "/latest/meta-data/iam/security-credentials/"
        if request.path == "/latest/api/token":
            return web.Response(text="a session token")
        if request.path == folder:
            self.asked.append("instance")
            return web.Response(text=self.role, status=200 if self.role else 404)
        assert request.path == folder + self.role
        key, expires = self._keys()
        return web.json_response(
            {"Code": "Success", "AccessKeyId": key, "SecretAccessKey": "s", "Token": "t", "Expiration": expires}
        )

    async def handle(self, request: web.Request) -> web.Response:
        body = (await request.read()).decode()
        if "X-Amz-Target" in request.headers:
            authorization = request.headers["Authorization"]
            self.signed.append(authorization.partition("Credential=")[2].partition("/")[0])
            if request.headers["X-Amz-Target"].rpartition(".")[2] in {"Query", "Scan"}:
                return web.json_response({"Items": []}, content_type="application/x-amz-json-1.0")
            refusal = {"__type": "AccessDeniedException", "message": "not authorized"}
            return web.json_response(refusal, status=400, content_type="application/x-amz-json-1.0")
        await asyncio.sleep(self.answers_after_s)
        if self.fault in {"500", "garbage", "hangs"}:
            return await self._fail()
        if request.path.startswith("/latest/"):
            return self._instance(request)
        key, expires = self._keys()
        if request.path == "/container":
            self.asked.append("container")
            return web.json_response({"AccessKeyId": key, "SecretAccessKey": "s", "Token": "t", "Expiration": expires})
        if request.path == "/federation/credentials":
            self.asked.append("sso")
            end_ms = int(datetime.fromisoformat(expires).timestamp() * 1000)
            return web.json_response(
                {
                    "roleCredentials": {
                        "accessKeyId": key,
                        "secretAccessKey": "s",
                        "sessionToken": "t",
                        "expiration": end_ms,
                    }
                }
            )
        action = next(part.partition("=")[2] for part in body.split("&") if part.startswith("Action="))
        self.asked.append(action)
        found = (
            f"<Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
            f"<SessionToken>t</SessionToken><Expiration>{expires}</Expiration></Credentials>"
        )
        text = (
            f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result>{found}'
            f"</{action}Result></{action}Response>"
        )
        return web.Response(text=text, content_type="text/xml")


def assumed_role(environment: pytest.MonkeyPatch, folder: Path, _url: str) -> None:
    (folder / "config").write_text(
        "[profile base]\naws_access_key_id = BASE\naws_secret_access_key = s\n"
        "[profile worker]\nrole_arn = arn:aws:iam::111122223333:role/worker\nsource_profile = base\n"
    )
    environment.setenv("AWS_PROFILE", "worker")


def web_identity(environment: pytest.MonkeyPatch, folder: Path, _url: str) -> None:
    (folder / "token").write_text("a token")
    environment.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(folder / "token"))
    environment.setenv("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/worker")


def container(environment: pytest.MonkeyPatch, _folder: Path, url: str) -> None:
    environment.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{url}/container")


def role_of_a_container(environment: pytest.MonkeyPatch, folder: Path, url: str) -> None:
    container(environment, folder, url)
    (folder / "config").write_text(
        "[profile worker]\nrole_arn = arn:aws:iam::111122223333:role/worker\ncredential_source = EcsContainer\n"
    )
    environment.setenv("AWS_PROFILE", "worker")


def instance(environment: pytest.MonkeyPatch, _folder: Path, url: str) -> None:
    environment.delenv("AWS_EC2_METADATA_DISABLED")
    environment.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)


def process(environment: pytest.MonkeyPatch, folder: Path, url: str) -> None:
    script = folder / "give.py"
    script.write_text(
        "import json, urllib.request\n"
        f"found = json.load(urllib.request.urlopen('{url}/container'))\n"
        "print(json.dumps({'Version': 1, 'AccessKeyId': found['AccessKeyId'], 'SecretAccessKey': 's',"
        " 'SessionToken': 't', 'Expiration': found['Expiration']}))\n"
    )
    (folder / "config").write_text(f"[profile worker]\ncredential_process = {sys.executable} {script}\n")
    environment.setenv("AWS_PROFILE", "worker")


def sso(environment: pytest.MonkeyPatch, folder: Path, _url: str) -> None:
    (folder / "config").write_text(
        "[profile worker]\nsso_start_url = https://example.org/start\nsso_region = us-east-1\n"
        "sso_account_id = 111122223333\nsso_role_name = worker\n"
    )
    cache = folder / ".aws" / "sso" / "cache"
    cache.mkdir(parents=True)
    from hashlib import sha1  # noqa: PLC0415

    name = sha1(b"https://example.org/start").hexdigest()  # noqa: S324 - the file name that AWS's tools use
    end = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    (cache / f"{name}.json").write_text(json.dumps({"accessToken": "t", "expiresAt": end}))
    # botocore works the folder out when it is imported.
    environment.setattr(AioSSOProvider, "_SSO_TOKEN_CACHE_DIR", str(cache))
    environment.setenv("AWS_PROFILE", "worker")
