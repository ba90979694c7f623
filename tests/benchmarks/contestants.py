"""Who takes part: each in a virtual environment of its own, made here by pip, and how each is started."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tests.benchmarks.contest import ROOT

ENVIRONMENTS = ROOT / "build" / "bench"
HERE = Path(__file__).parent / "contenders"

SERVICE = "this service"
FLOOR = "floor"
LAMBDA = "Lambda way"
ASYNC_KINESIS = "async-kinesis 3.0.1"
KINESIS_PYTHON = "kinesis-python 0.2.1"
LIBRARIES = (ASYNC_KINESIS, KINESIS_PYTHON)

QUOTAS = {
    "SCORING_PINPOINT_UPDATE_BATCH_PER_S": "10000",
    "SCORING_PINPOINT_GET_USER_PER_S": "10000",
    "SCORING_IDENTITY_LOOKUP_PER_S": "10000",
}
"""Pinpoint's default quotas would be what is measured; everything else is the service's default."""


class Contender(msgspec.Struct, frozen=True):
    """One who takes part.

    Attributes:
        name: As in the results.
        module: Its file, or empty for the service.
        packages: What pip installs for it; empty: it runs in the service's own environment.
        publishes: Whether it writes to Pinpoint; the libraries only feed the score table.
        share: Its events in a round, as a share of the service's: the slow ones get fewer.
    """

    name: str
    module: str
    packages: tuple[str, ...]
    publishes: bool
    share: float


CONTENDERS = (
    Contender(SERVICE, "", (), publishes=True, share=1.0),
    Contender(FLOOR, "floor.py", (), publishes=True, share=1.0),
    Contender(ASYNC_KINESIS, "async_kinesis.py", ("async-kinesis==3.0.1", "aiobotocore==3.10.0"), False, 0.025),  # noqa: FBT003
    Contender(KINESIS_PYTHON, "kinesis_python.py", ("kinesis-python==0.2.1", "boto3==1.43.106"), False, 0.025),  # noqa: FBT003
    Contender(LAMBDA, "lambda_way.py", ("boto3==1.43.106",), True, 0.006),  # noqa: FBT003
)

ABSENT = {
    "amazon_kclpy 3.2.0": "not run: its MultiLangDaemon is a Java program whose jars "
    "could not be had where this was measured",
}


def command(contender: Contender) -> list[str]:
    """Return how to start a contender, its environment made.

    Raises:
        OSError: The environment cannot be made.
    """
    if not contender.module:
        return [sys.executable, "-m", "service", "run"]
    python = sys.executable
    if contender.packages:
        folder = ENVIRONMENTS / contender.module.removesuffix(".py")
        python = str(folder / "bin" / "python")
        stamp = folder / "ready"
        if not stamp.exists() or stamp.read_text() != "\n".join(contender.packages):
            shutil.rmtree(folder, ignore_errors=True)
            _make(folder, contender.packages)
            stamp.write_text("\n".join(contender.packages))
    return [python, str(HERE / contender.module)]


def _make(folder: Path, packages: tuple[str, ...]) -> None:
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet", "install", *packages]
    for step in ([sys.executable, "-m", "venv", str(folder)], pip):
        made = subprocess.run(step, check=False, capture_output=True, text=True)  # noqa: S603
        if made.returncode:
            raise OSError(made.stderr.strip().splitlines()[-1] if made.stderr.strip() else "pip failed")


def extra(contender: Contender) -> Mapping[str, str]:
    """Return a contender's environment, beside AWS's."""
    if contender.module:
        return {}
    return {
        "SCORING_STREAM": "engagement",
        "SCORING_SINKS": "pinpoint",
        "SCORING_HTTP_PORT": "0",
        "SCORING_LOG_FORMAT": "json",
        **QUOTAS,
    }
