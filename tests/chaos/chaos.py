"""One run: emulators, the proxy, three workers, a campaign, attacks and reshards; at the end everything is compared.

Blocking, and read from top to bottom in `Run.play`; beside it run the thread that plays the events and the one that
watches the lease table.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

from service.config.load import load
from service.config.settings import Settings
from service.local.emulator import Emulator
from service.local.local_aws import LocalAws
from service.local.pinpoint_fake import PinpointProcess
from service.local.playback import Playback
from service.local.population import PROJECT_ID, populate
from service.local.processes import ChildFailedError
from service.local.traffic import Meaning, campaign
from service.local.truth import CUSTOM, DEFAULTS, Found, Truth, differences
from tests.chaos.faults import CALM, STORM
from tests.chaos.fleet import Fleet, Life
from tests.chaos.kinesis import KinesisLocal
from tests.chaos.options import Options
from tests.chaos.producer import client
from tests.chaos.proxy import ProxyProcess
from tests.chaos.report import Report
from tests.chaos.reshards import Reshards
from tests.chaos.watch import LeaseWatch, TakeOver

STREAM = "chaos-events"
WORKERS = 3
PIPELINES = 2
FIRST_SHARDS = 2
TICK_S = 0.05
PAUSE_S = (1.0, 3.0)
"""Shortest and longest pause between two attacks."""
OVERSLEEP_S = (2.5, 5.0)
"""How much longer than the lease a worker is stopped."""
TAKE_OVER_TIMEOUT_S = 30.0
SETTLE_TIMEOUT_S = 60.0
EXIT_TIMEOUT_S = 30.0
DRAIN_TIMEOUT_S = 120.0
"""Seconds after the last event within which all must be scored and published."""
STABLE_S = 2.0
"""Seconds for which all must stay right: what comes late would count something twice."""
QUIET_BUT_WRONG_S = 15.0
SAY_S = 3.0
"""Seconds between two lines about what is still missing at the end."""
CALM_SHARE = 0.3
"""Share of the events before the proxy's faults begin: take-overs are timed without and with them."""
KILLED_AGAIN = 0.3
"""Probability that a worker that was killed is killed once more while it starts."""
DECK = ("SIGKILL", "SIGTERM", "SIGSTOP", "SIGKILL", "SIGTERM", "two SIGKILLs", "SIGTERM")
"""Attacks come as from this deck, shuffled anew when it is used up."""


class Run:
    """A context manager that leaves nothing running, and logs only where something was wrong."""

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self._options = options
        self._say = say
        self._rng = Random(f"chaos-{options.seed}")
        self._stack = ExitStack()
        self._population = populate(max(20, options.events // 25), options.seed)
        self._truth = Truth(self._population, {**DEFAULTS, **CUSTOM})
        self._telling = threading.Lock()
        self._take_overs: list[TakeOver] = []
        self._reshards: list[str] = []
        self._faults: list[str] = []
        self._reported: set[str] = set()
        self._storming = False
        self._done = False
        self.logs = Path(tempfile.mkdtemp(prefix="scoring-chaos-"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if self._done or (kind is not None and not issubclass(kind, Exception)):
            shutil.rmtree(self.logs, ignore_errors=True)

    def play(self) -> Report:
        """Play everything and judge it."""
        self._prepare()
        played_s = self._campaign()
        self._proxy.set_rates(CALM)
        self._storming = False
        self._say("healing: no more faults, all workers running")
        self._fleet.start_missing()
        drained_s, found = self._drain()
        self._faults = differences(self._truth, self._population, found) + self._faults
        load = os.getloadavg()[0]
        self._stop_workers()
        counts = self._proxy.counts()
        self._done = not self._faults and not self._options.keep_logs
        return Report(
            events=self._truth.events,
            users=len(self._population.users),
            endpoints=len(self._population.everything),
            seed=self._options.seed,
            lease_s=self._options.lease_s,
            requests=counts["requests"],
            faults=counts["faults"],
            refused=counts["refused"],
            reshards=self._reshards,
            take_overs=self._take_overs,
            played_s=played_s,
            drained_s=drained_s,
            load=(load, os.cpu_count() or 1),
            differences=self._faults,
        )

    # -- before -----------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        options, enter, logs = self._options, self._stack.enter_context, self.logs
        self._say(f"starting kinesis-local, the embedded AWS, the Pinpoint fake and the proxy; logs in {logs}")
        self._kinesis = enter(KinesisLocal(log_path=logs / "kinesis.log"))
        self._aws = enter(Emulator(log_path=logs / "aws.log"))
        self._pinpoint = enter(PinpointProcess(apps=[PROJECT_ID], log_path=logs / "pinpoint.log"))
        self._proxy = enter(
            ProxyProcess(
                kinesis=self._kinesis.endpoint_url,
                dynamodb=self._aws.endpoint_url,
                pinpoint=self._pinpoint.endpoint_url,
                seed=options.seed,
                log_path=logs / "proxy.log",
            )
        )
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "SCORING_"))}
        configured = {
            "SCORING_STREAM": STREAM,
            "SCORING_SINKS": "pinpoint",
            "SCORING_LEASE_DURATION_S": f"{options.lease_s:g}",
            "SCORING_LOG_FORMAT": "json",
            # Quotas are not what is shown here, and waiting for them would only make it longer.
            "SCORING_IDENTITY_LOOKUP_PER_S": "200",
            "SCORING_PINPOINT_GET_USER_PER_S": "1000",
            "SCORING_PINPOINT_UPDATE_BATCH_PER_S": "10",
        }
        direct = {**self._aws.environment(), **self._kinesis.environment(), **self._pinpoint.environment()}
        self._settings: Settings = load({**direct, **configured})
        self._local_aws = LocalAws(direct, self._settings, self._aws, self._pinpoint)
        self._local_aws.create_stream(FIRST_SHARDS)
        self._set_up({**inherited, **direct, **configured})
        self._local_aws.define(CUSTOM)
        self._local_aws.settle(self._population)
        self._fleet = Fleet(WORKERS, {**inherited, **self._proxy.environment(), **configured}, logs)
        self._stack.callback(self._fleet.end)
        self._watch = enter(
            LeaseWatch(client("dynamodb", self._aws.endpoint_url, timeout_s=10), self._settings.leases_table)
        )

    def _set_up(self, environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", "service", "setup", "--project", PROJECT_ID]
        done = subprocess.run(  # noqa: S603 - the argv is ours
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
        )
        if done.returncode:
            raise ChildFailedError(f"`scoring setup` failed: {done.stderr.decode(errors='replace')[-2000:]}")

    # -- meanwhile --------------------------------------------------------------------------------------------------

    def _campaign(self) -> float:
        """Play the events under attack; return the seconds that took."""
        options = self._options
        self._fleet.start_missing()
        self._until(self._settled, SETTLE_TIMEOUT_S, "three workers share the shards")
        reshards = Reshards(self._local_aws.kinesis, STREAM, self._rng, self._resharded)
        self._due = [
            (0.15, reshards.split),
            (CALM_SHARE, self._begin_storm),
            (0.45, reshards.merge),
            (0.70, reshards.double),
        ]
        began = time.monotonic()
        records = campaign(self._population, options.events, options.seed, rate=options.events / options.seconds)
        producer = client("kinesis", self._proxy.endpoint_url, timeout_s=60)
        with Playback(producer, STREAM, records, self._tell) as self._playback:
            for attack in self._attacks():
                # A worker that has only started cannot take anything over yet.
                self._until(self._joined, SETTLE_TIMEOUT_S, "every worker was a member of both pipelines")
                if self._playback.done:
                    break
                attack()
                self._pause(self._rng.uniform(*PAUSE_S))
        while self._due:
            self._due.pop(0)[1]()
        return time.monotonic() - began

    def _begin_storm(self) -> None:
        if self._options.storm:
            self._proxy.set_rates(STORM.times(self._options.storm))
            self._storming = True
            self._say("the storm begins: faults in every service")

    def _tell(self, meanings: Sequence[Meaning]) -> None:
        with self._telling:
            self._truth.add(meanings)

    def _tick(self) -> None:
        """Look after everything that is due or wrong; called all the time."""
        self._kinesis.check()
        if self._watch.error is not None:
            raise self._watch.error
        for life in self._fleet.fallen():
            if life.name not in self._reported:
                self._reported.add(life.name)
                self._faults.append(
                    f"{life.name} ended by itself, exit code {life.returncode}: {life.last_words()}; {life.log_path}"
                )
                self._fleet.start(int(life.name.split("-")[1]))
        playback = getattr(self, "_playback", None)
        if playback is not None and self._due and playback.put >= self._due[0][0] * self._options.events:
            self._due.pop(0)[1]()
        time.sleep(TICK_S)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._tick()

    def _until(self, met: Callable[[], bool], timeout_s: float, what: str) -> bool:
        """Wait until `met`; note a fault where it takes longer than `timeout_s`; return whether it was met."""
        until = time.monotonic() + timeout_s
        while not met():
            if time.monotonic() > until:
                self._faults.append(f"it took more than {timeout_s:g} s until {what}")
                return False
            self._tick()
        return True

    def _joined(self) -> bool:
        members = self._watch.leases().members
        return all(sum(life.owns(member) for member in members) >= PIPELINES for life in self._fleet.lives.values())

    def _settled(self) -> bool:
        """Whether every open shard has an owner that runs."""
        owners = [row.owner for row in self._watch.leases().rows.values() if not row.finished]
        lives = self._fleet.lives.values()
        return len(owners) > FIRST_SHARDS and all(any(life.owns(owner) for life in lives) for owner in owners)

    # -- attacks ----------------------------------------------------------------------------------------------------

    def _attacks(self) -> Iterator[Callable[[], None]]:
        by_name = {
            "SIGKILL": lambda: self._kill(1),
            "two SIGKILLs": lambda: self._kill(2),
            "SIGTERM": self._term,
            "SIGSTOP": self._freeze,
        }
        while True:
            for name in self._rng.sample(DECK, len(DECK)):
                yield by_name[name]

    def _victims(self, count: int) -> list[int]:
        """Choose workers, rather such as hold something."""
        rows = self._watch.leases().rows.values()
        lives = self._fleet.lives
        holding = [
            number
            for number, life in sorted(lives.items())
            if life.running and any(life.owns(row.owner) for row in rows if not row.finished)
        ]
        others = [number for number in sorted(lives) if number not in holding]
        return (self._rng.sample(holding, len(holding)) + others)[:count]

    def _strike(self, kind: str, lives: Sequence[Life], number: signal.Signals) -> TakeOver:
        def send() -> None:
            for life in lives:
                life.send(number)

        take_over = self._watch.strike(
            kind, lambda owner: any(life.owns(owner) for life in lives), send, storm=self._storming
        )
        self._take_overs.append(take_over)
        return take_over

    def _await(self, take_over: TakeOver) -> None:
        self._until(
            lambda: take_over.seconds is not None,
            TAKE_OVER_TIMEOUT_S,
            f"each lease of a {take_over.kind} victim had another owner: {sorted(take_over.pending)}",
        )
        role = " (led)" if take_over.led else ""
        self._say(f"{take_over.kind}{role}: {take_over.leases} leases, {take_over.seconds or -1:.2f} s")

    def _kill(self, count: int) -> None:
        numbers = self._victims(count)
        lives = [self._fleet.lives[number] for number in numbers]
        for life in lives:
            life.expected_exit = True
        at_once = self._rng.random() < 0.5
        take_over = self._strike("SIGKILL" if count == 1 else "two SIGKILLs", lives, signal.SIGKILL)
        for life in lives:
            life.wait(EXIT_TIMEOUT_S)
        if not at_once:
            self._await(take_over)
        for number in numbers:
            self._fleet.start(number)
        if at_once:
            self._await(take_over)
        if self._rng.random() < KILLED_AGAIN:
            self._pause(self._rng.uniform(0.2, 2.0))
            self._kill_young(numbers[0])

    def _kill_young(self, number: int) -> None:
        """SIGKILL a worker while it starts; whether it holds something yet is left to chance."""
        life = self._fleet.lives[number]
        life.expected_exit = True
        take_over = self._strike("SIGKILL at start", [life], signal.SIGKILL)
        life.wait(EXIT_TIMEOUT_S)
        self._fleet.start(number)
        self._await(take_over)

    def _term(self) -> None:
        (number,) = self._victims(1)
        life = self._fleet.lives[number]
        life.expected_exit = True
        self._await(self._strike("SIGTERM", [life], signal.SIGTERM))
        self._until(lambda: not life.running, EXIT_TIMEOUT_S, f"{life.name} ended after SIGTERM")
        self._ended(life)
        self._fleet.start(number)

    def _ended(self, life: Life) -> None:
        if life.returncode != 0:
            self._faults.append(
                f"{life.name} ended after SIGTERM, exit code {life.returncode}: {life.last_words()}; {life.log_path}"
            )

    def _freeze(self) -> None:
        (number,) = self._victims(1)
        life = self._fleet.lives[number]
        take_over = self._strike("SIGSTOP", [life], signal.SIGSTOP)
        self._pause(self._options.lease_s + self._rng.uniform(*OVERSLEEP_S))
        life.send(signal.SIGCONT)
        self._await(take_over)

    def _resharded(self, what: str) -> None:
        self._reshards.append(f"{what}, at event {self._playback.put:,}")
        self._say(self._reshards[-1])

    # -- after ------------------------------------------------------------------------------------------------------

    def _drain(self) -> tuple[float, Found]:
        """Wait until all is right and stays so, or will not become so; return the seconds that took, and what is."""
        began = time.monotonic()
        right_since = quiet_since = None
        said_at = began
        while True:
            self._pause(0.3)
            now = time.monotonic()
            found = self._local_aws.found()
            missing = differences(self._truth, self._population, found)
            right = not missing and self._settled()
            if not right and now > said_at + SAY_S:
                said_at = now
                self._say(f"not right yet: {len(missing):,} differences, {missing[:1]}")
            right_since = (right_since or now) if right else None
            if right_since is not None and now - right_since > STABLE_S:
                return right_since - began, found
            quiet_since = (quiet_since or now) if self._quiet() else None
            quiet_but_wrong = quiet_since is not None and not right and now - quiet_since > QUIET_BUT_WRONG_S
            if quiet_but_wrong or now - began > DRAIN_TIMEOUT_S:
                self._faults.append(f"not all was right within {now - began:.0f} s of the last event")
                return now - began, found

    def _quiet(self) -> bool:
        looks = [life.look() for life in self._fleet.lives.values()]
        return all(look is not None and not any(look.lag_s.values()) and not look.pending for look in looks)

    def _stop_workers(self) -> None:
        lives = list(self._fleet.lives.values())
        for life in lives:
            life.expected_exit = True
            life.send(signal.SIGTERM)
        for life in lives:
            life.wait(EXIT_TIMEOUT_S)
            self._ended(life)
