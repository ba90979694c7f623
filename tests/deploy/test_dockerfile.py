"""The Dockerfile: what hadolint says of it, and what it promises."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

from service.config.settings import FIELDS
from tests.deploy.files import DOCKERFILE, ROOT

TEXT = DOCKERFILE.read_text(encoding="utf-8")
STAGES = re.split(r"^FROM ", TEXT, flags=re.MULTILINE)[1:]
FINAL = STAGES[-1]


def test_hadolint_has_nothing_to_say():
    tool = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([tool, DOCKERFILE], capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr


def test_two_stages_on_one_pinned_base():
    assert [stage.split()[0] for stage in STAGES] == ["${BASE}", "${BASE}"]
    assert re.search(r"^ARG BASE=python:3\.13\.\d+-slim-\w+$", TEXT, re.MULTILINE)


def test_what_is_installed_is_locked_with_hashes():
    installs = re.findall(r"pip (?:--python \S+ )?install [^\\&]*", TEXT)
    assert installs
    assert all("--require-hashes" in command or "--no-deps" in command for command in installs)


def test_nothing_is_built_or_installed_in_the_final_image():
    assert "apt-get" not in TEXT
    assert re.findall(r"pip (\w+)", FINAL) == ["uninstall"]
    assert re.findall(r"^COPY (.*)$", FINAL, re.MULTILINE) == ["--from=build /opt/scoring /opt/scoring"]


def test_it_runs_as_a_numeric_user_and_stops_on_sigterm():
    user, group = re.search(r"^USER (\d+):(\d+)$", FINAL, re.MULTILINE).groups()
    assert int(user) > 0
    assert int(group) > 0
    assert "\nSTOPSIGNAL SIGTERM\n" in FINAL


def test_its_entry_point_is_the_command():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert re.findall(r'^ENTRYPOINT \["(\w+)"\]$', FINAL, re.MULTILINE) == list(scripts)
    assert f"\nEXPOSE {FIELDS['http_port'].default}\n" in FINAL


def test_its_health_check_is_python_and_asks_healthz():
    check = re.search(r"^HEALTHCHECK .*\\\n\s+CMD (\[.*\])$", FINAL, re.MULTILINE)[1]
    program = re.fullmatch(r'\["python", "-c", "(.*)"\]', check)[1]
    compile(program, "health check", "exec")
    assert "/healthz" in program


def test_the_version_is_the_project_s():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"ARG VERSION={project['version']}\n" in TEXT


def test_the_context_is_an_allow_list_with_all_that_is_copied():
    lines = [
        line
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert lines[0] == "*"
    allowed = [line.removeprefix("!") for line in lines if line.startswith("!")]
    copied = [
        source
        for words in map(shlex.split, re.findall(r"^COPY (?!--from)(.*)$", TEXT, re.MULTILINE))
        for source in words[:-1]
    ]
    assert all(any(fnmatch(source, pattern) for pattern in allowed) for source in copied)
    assert sorted(copied) == sorted(allowed)
