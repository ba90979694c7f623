"""`scoring demo`: an embedded AWS, a campaign, a worker that is killed half-way, and a judge.

Blocking, and single-threaded but for the thread that plays the events: what must happen in which order is
read from top to bottom in `Demo`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from service.aws.explain import AWS_ERRORS
from service.aws.translation import AwsSetupError
from service.config.load import load
from service.config.settings import Settings
from service.local.emulator import Emulator
from service.local.live import Moment, View
from service.local.local_aws import LocalAws, LocalAwsError
from service.local.meter import Counts
from service.local.pinpoint_fake import PinpointProcess
from service.local.playback import Playback, PlaybackError
from service.local.population import PROJECT_ID, populate
from service.local.processes import ChildFailedError
from service.local.report import Report
from service.local.traffic import Meaning, campaign
from service.local.truth import CUSTOM, DEFAULTS, Found, Truth, differences
from service.local.worker_process import Gauges, WorkerProcess
from service.runtime.errors import TransientError

STREAM = "demo-events"
QUOTAS = "GetEndpoint=10,UpdateEndpoint=10,UpdateEndpointsBatch=20,*=300"
"""AWS's default quotas, but for UpdateEndpointsBatch (2 per second): with it creating the endpoints would take ten
seconds. The worker keeps to 2 by itself."""
LEASE_DURATION_S = 5.0
"""Short, so that what the killed worker left is taken over soon."""
TICK_S = 0.25
QUICK_TICK_S = 0.1
"""Seconds between two looks while the restarted worker's first commit is awaited."""
COUNT_EVERY_S = 1.0
DRAIN_TIMEOUT_S = 45.0
"""Seconds after the last event within which all must be scored and published."""
QUIET_BUT_WRONG_S = 6.0
"""Seconds a worker may say that it has nothing to do while something differs: then it differs for good."""
SETUP_TIMEOUT_S = 60.0
MAX_LINE = 300
"""Characters of a log line that an error shows."""
UNWIND_GRACE_S = 5.0
"""Seconds a worker gets to end when the demo is interrupted or has failed."""


class Options(msgspec.Struct, frozen=True):
    """What to play.

    Attributes:
        users: People in the population.
        events: Records to put.
        seed: Another seed, another story.
        shards: Of the stream.
        rate: Records put per second.
        corrupt: Whether to spoil one score before judging, to see the judge find it.
    """

    users: int = 1_000
    events: int = 24_000
    seed: int = 1
    shards: int = 2
    rate: float = 1_000.0
    corrupt: bool = False


class DemoError(Exception):
    """The demo could not be played to its end.

    Attributes:
        what: What failed.
        why: The cause.
        remedy: What to do.
    """

    def __init__(self, what: str, why: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.remedy = remedy


class Demo:
    """One run; a context manager that leaves nothing running, and logs only where something was wrong.

    Args:
        options: What to play.
        view: Where it is shown.
    """

    def __init__(self, options: Options, view: View) -> None:
        self._options = options
        self._view = view
        self._stack = ExitStack()
        self._population = populate(options.users, options.seed)
        self._truth = Truth(self._population, {**DEFAULTS, **CUSTOM})
        self._telling = threading.Lock()
        self._environment: dict[str, str] = {}
        self._baseline = Counts({})
        self._handled_before = 0
        self._counted_at = 0.0
        self._moment = Moment(total=options.events)
        self._down_s: float | None = None
        self._played_s = self._drained_s = 0.0
        self._stop_s: float | None = None
        self._done = False
        self.logs = Path(tempfile.mkdtemp(prefix="scoring-demo-"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt | SystemExit):
            self._view.say("interrupted: stopping the worker and the servers, which takes a few seconds")
        self._stack.close()
        interrupted = kind is not None and not issubclass(kind, Exception)
        if self._done or interrupted:
            shutil.rmtree(self.logs, ignore_errors=True)

    @property
    def worker_log(self) -> Path:
        """Where the worker's log lines go, those of both lives."""
        return self.logs / "worker.log"

    def urls(self) -> dict[str, str]:
        """Return what can be looked at while it is running."""
        return {
            "worker metrics": f"{self._worker.url}/metrics",
            "embedded AWS": self._aws.endpoint_url,
            "Pinpoint fake": self._pinpoint.endpoint_url,
        }

    def environment(self) -> dict[str, str]:
        """Return the variables with which `scoring` and any AWS SDK reach the embedded AWS."""
        return {name: value for name, value in self._environment.items() if name.startswith(("AWS_", "SCORING_"))}

    def play(self, *, keep: bool = False) -> Report:
        """Play everything and judge it.

        Args:
            keep: Whether to leave the worker running.

        Raises:
            DemoError: It could not be played to its end.
        """
        try:
            self._prepare()
            self._campaign()
            found = self._drain()
            if self._options.corrupt:
                self._local_aws.spoil(self._population.endpoints[0])
                found = self._local_aws.found()
            faults = differences(self._truth, self._population, found)
            bill = self._local_aws.counts().since(self._baseline)
            if not keep:
                faults += self._stop_worker()
        except ChildFailedError as error:
            raise self._failed("a process of the demo failed", str(error)) from error
        except PlaybackError as error:
            raise self._failed("the events could not be put on the stream", str(error)) from error
        except (LocalAwsError, OSError, TransientError, AwsSetupError, *AWS_ERRORS) as error:
            raise self._failed(
                "the embedded AWS did not answer as it should", f"{type(error).__name__}: {error}"
            ) from error
        self._done = not faults
        return self._report(found, faults, bill)

    def _failed(self, what: str, why: str) -> DemoError:
        # A worker's last words are JSON lines with tracebacks of any length.
        why = "\n".join(line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]}..." for line in why.splitlines())
        return DemoError(what, why, f"the logs are in {self.logs}; the worker's is {self.worker_log}")

    def _prepare(self) -> None:
        options, say = self._options, self._view.say
        say("starting the embedded AWS and the Pinpoint fake")
        self._aws = self._stack.enter_context(Emulator(log_path=self.logs / "aws.log"))
        self._pinpoint = self._stack.enter_context(
            PinpointProcess(quotas=QUOTAS, apps=[PROJECT_ID], log_path=self.logs / "pinpoint.log")
        )
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "SCORING_"))}
        self._environment = {
            **inherited,
            **self._aws.environment(),
            **self._pinpoint.environment(),
            "SCORING_STREAM": STREAM,
            "SCORING_SINKS": "pinpoint",
            "SCORING_LEASE_DURATION_S": f"{LEASE_DURATION_S:g}",
            "SCORING_LOG_FORMAT": "json",
            # At ten look-ups a second: how long they may take after the kill depends on this machine.
            "SCORING_IDENTITY_LOOKUP_WAIT_S": "60",
        }
        self._settings: Settings = load(self.environment())
        self._local_aws = LocalAws(self._environment, self._settings, self._aws, self._pinpoint)
        say(f"creating a stream of {options.shards} shards, the tables and the definitions")
        self._local_aws.create_stream(options.shards)
        self._set_up()
        self._local_aws.define(CUSTOM)
        count = len(self._population.everything)
        say(f"creating {count:,} endpoints for {options.users:,} users")
        self._local_aws.settle(self._population)
        self._baseline = self._local_aws.counts()

    def _set_up(self) -> None:
        command = [sys.executable, "-m", "service", "setup", "--project", PROJECT_ID]
        try:
            done = subprocess.run(  # noqa: S603 - the argv is ours
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=SETUP_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise self._failed("`scoring setup` did not end", f"not within {SETUP_TIMEOUT_S:g} s") from error
        (self.logs / "setup.log").write_bytes(done.stdout + done.stderr)
        if done.returncode:
            last = done.stderr.decode(errors="replace").strip() or done.stdout.decode(errors="replace").strip()
            raise self._failed(f"`scoring setup` failed with exit code {done.returncode}", last[-2_000:])

    def _start_worker(self) -> None:
        self._worker = WorkerProcess(self._environment, self.worker_log)
        self._stack.callback(self._worker.stop, UNWIND_GRACE_S)
        self._worker.start()

    def _tell(self, meanings: Sequence[Meaning]) -> None:
        with self._telling:
            self._truth.add(meanings)

    def _campaign(self) -> None:
        options = self._options
        self._start_worker()
        self._worker.wait_ready()
        self._view.say(f"the worker reads; playing {options.events:,} events at {options.rate:,.0f} per second")
        began = time.monotonic()
        records = campaign(self._population, options.events, options.seed, rate=options.rate)
        with Playback(self._local_aws.kinesis, STREAM, records, self._tell) as playback:
            while not playback.done and playback.put < options.events / 2:
                self._watch(playback.put)
                time.sleep(TICK_S)
            self._crash(playback)
            while not playback.done:
                self._watch(playback.put)
                time.sleep(TICK_S)
        self._played_s = time.monotonic() - began

    def _crash(self, playback: Playback) -> None:
        self._watch(playback.put)
        self._handled_before += self._worker.last.handled
        self._worker.kill()
        killed = time.monotonic()
        self._view.say("kill -9: the worker is gone; starting it again")
        self._start_worker()
        while time.monotonic() < killed + DRAIN_TIMEOUT_S:
            gauges = self._watch(playback.put)
            if gauges is not None and gauges.written:
                self._down_s = time.monotonic() - killed
                self._view.say(f"{self._down_s:.1f} s after the kill the first scores are committed again")
                return
            if playback.done and gauges is not None and gauges.quiet:
                return  # a campaign so small that all of it was committed before the kill
            time.sleep(QUICK_TICK_S)
        raise self._failed(
            "the restarted worker committed nothing", f"not within {DRAIN_TIMEOUT_S:g} s; {_state(self._worker.last)}"
        )

    def _watch(self, put: int) -> Gauges | None:
        """Look at the worker and show what there is."""
        self._worker.check()
        gauges = self._worker.look()
        now = time.monotonic()
        if now >= self._counted_at + COUNT_EVERY_S:
            self._counted_at = now
            self._moment = msgspec.structs.replace(
                self._moment,
                users=self._local_aws.users_scored(),
                endpoints=self._local_aws.endpoints_scored(),
                dead_letters=self._local_aws.letters(),
            )
        last = self._worker.last
        # What a killed worker committed after the last look at it is in nobody's counts: at the tip all is dealt with.
        at_tip = put == self._options.events and last.lag_s.get("ingest") == 0.0
        processed = put if at_tip else min(put, self._handled_before + last.handled)
        self._moment = msgspec.structs.replace(
            self._moment,
            put=put,
            processed=processed,
            worker_up=gauges is not None,
            lag_s=gauges and gauges.lag_s.get("ingest"),
            publish_lag_s=gauges and gauges.lag_s.get("publish"),
        )
        self._view.show(self._moment)
        return gauges

    def _drain(self) -> Found:
        """Wait until the worker is quiet and all is as it must be, or will not become so."""
        self._view.say("all events are on the stream; waiting until every score is published")
        began = time.monotonic()
        quiet_since: float | None = None
        while True:
            gauges = self._watch(self._options.events)
            now = time.monotonic()
            if gauges is None or not gauges.quiet:
                quiet_since = None
            else:
                quiet_since = quiet_since or now
                found = self._local_aws.found()
                right = not differences(self._truth, self._population, found)
                if right or now - quiet_since > QUIET_BUT_WRONG_S:
                    self._drained_s = now - began
                    return found
            if now - began > DRAIN_TIMEOUT_S:
                raise self._not_drained()
            time.sleep(TICK_S)

    def _not_drained(self) -> DemoError:
        missing = differences(self._truth, self._population, self._local_aws.found())
        first = f"; first: {missing[0]}" if missing else ""
        return self._failed(
            f"not everything was scored and published within {DRAIN_TIMEOUT_S:g} s of the last event",
            f"{len(missing):,} things are not as they must be{first}; {_state(self._worker.last)}",
        )

    def _stop_worker(self) -> list[str]:
        self._view.say("stopping the worker")
        began = time.monotonic()
        code = self._worker.stop()
        self._stop_s = time.monotonic() - began
        return [] if code == 0 else [f"worker: SIGTERM should end it with exit code 0, it ended with {code}"]

    def _report(self, found: Found, faults: Sequence[str], bill: Counts) -> Report:
        return Report(
            events=self._truth.events,
            outcomes=self._truth.outcomes,
            users=len(self._population.users),
            scores=found.scores,
            endpoints=len(self._population.everything),
            dead_letters=found.dead_letters,
            differences=faults,
            bill=bill,
            replaced=self._truth.replaced,
            played_s=round(self._played_s, 2),
            drained_s=round(self._drained_s, 2),
            down_s=None if self._down_s is None else round(self._down_s, 2),
            stop_s=None if self._stop_s is None else round(self._stop_s, 2),
            total_s=round(self._view.elapsed_s, 2),
            seed=self._options.seed,
        )

    def hold(self) -> None:
        """Wait for as long as the worker runs.

        Raises:
            DemoError: It ended by itself.
        """
        while self._worker.running:
            time.sleep(TICK_S)
        raise self._failed("the worker ended by itself", "its log says why")


def _state(gauges: Gauges) -> str:
    lags = ", ".join(f"{pipeline} {lag:.1f} s" for pipeline, lag in sorted(gauges.lag_s.items())) or "unknown"
    shards = ", ".join(f"{pipeline} {count}" for pipeline, count in sorted(gauges.shards.items())) or "none"
    return (
        f"the worker last said: lag {lags}; {gauges.pending:,} scores to publish; "
        f"{gauges.handled:,} records dealt with; shards {shards}"
    )
