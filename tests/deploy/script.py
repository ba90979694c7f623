"""Runs deploy/deploy with a fake `aws` first on the PATH, and keeps what it called."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.deploy.templates import FOLDER

SCRIPT = FOLDER.parent / "deploy"

FAKE = """#!{python}
import json, pathlib, sys
folder = pathlib.Path(__file__).parent
words = sys.argv[1:]
while words and words[0].startswith("--") and words[0] != "--version":
    words = words[2:]
with (folder / "calls").open("a") as calls:
    calls.write(json.dumps(words) + "\\n")
if "--parameters" in words:
    given = words[words.index("--parameters") + 1].removeprefix("file://")
    (folder / "parameters").write_text(pathlib.Path(given).read_text())
answers = json.loads((folder / "answers").read_text())
line = " ".join(words)
for start, (status, text) in answers.items():
    if all(word in line for word in start.split()):
        print(text, file=sys.stderr if status else sys.stdout)
        sys.exit(status)
"""

NONE = (255, "An error occurred (ValidationError): Stack with id x does not exist")
NEW = {
    "sts": (0, "arn:aws:iam::123456789012:user/someone"),
    "describe-stacks": NONE,
    "describe-change-set StatusReason": (0, "None"),
    "describe-change-set": (0, "| Add | Stream |"),
}


class Deploy:
    """Runs the script with a fake `aws` first on the PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = folder / "settings.conf"
        self.settings.write_text("Region=us-east-1\n")
        self.answer({})
        fake = folder / "aws"
        fake.write_text(FAKE.format(python=sys.executable))
        fake.chmod(0o755)

    def answer(self, answers: dict[str, tuple[int, str]]) -> None:
        """The first entry all of whose words are in the call answers it, then NEW's; no entry: nothing, success."""
        others = {words: answer for words, answer in NEW.items() if words not in answers}
        (self.folder / "answers").write_text(json.dumps(answers | others))

    def __call__(self, *words: str, typed: str = "", path: str = "") -> subprocess.CompletedProcess[str]:
        environment = {"PATH": path or f"{self.folder}:{os.environ['PATH']}", "HOME": str(self.folder)}
        return subprocess.run(  # noqa: S603 # the script under test
            [SCRIPT, *words, "-f", self.settings],
            env=environment,
            input=typed,
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self) -> list[str]:
        log = self.folder / "calls"
        return [" ".join(json.loads(line)[:2]) for line in log.read_text().splitlines()] if log.exists() else []

    def parameters(self) -> dict[str, str]:
        given = json.loads((self.folder / "parameters").read_text())
        return {item["ParameterKey"]: item["ParameterValue"] for item in given}
