"""The demo while it runs: a view that moves on a terminal, a line now and then everywhere else. All on stderr."""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType
from typing import Self

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

LINE_EVERY_S = 5.0
"""Seconds between two lines where there is no terminal."""
RATE_OVER_S = 3.0
"""Seconds over which the rate is taken."""
NEWS_KEPT = 6
"""Latest lines of news shown under the figures."""


class Moment(msgspec.Struct, frozen=True):
    """What there is to see at one time.

    Attributes:
        put: Events on the stream.
        total: Events there will be.
        processed: Events the worker has finished, whatever their outcome: scored, ignored, set aside.
        worker_up: Whether the worker answers.
        lag_s: Age of the oldest event not yet processed, seconds; None where the worker does not answer, or reads no
            shard yet.
        publish_lag_s: Age of the oldest score not yet published, seconds; likewise.
        users: Users with a score.
        endpoints: Endpoints that show a score.
        dead_letters: Records set aside.
    """

    put: int = 0
    total: int = 0
    processed: int = 0
    worker_up: bool = True
    lag_s: float | None = None
    publish_lag_s: float | None = None
    users: int = 0
    endpoints: int = 0
    dead_letters: int = 0


class View:
    """Shows moments; a context manager that gives the terminal back."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._news: deque[str] = deque(maxlen=NEWS_KEPT)
        self._rates: deque[tuple[float, int]] = deque()
        self._line_at = self._started
        self._moment = Moment()
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the terminal back. Does nothing the second time."""
        if self._live:
            self._live.stop()
            self._live = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the view was made."""
        return time.monotonic() - self._started

    def say(self, news: str) -> None:
        """Show one line of news, at once."""
        line = f"{self.elapsed_s:5.1f} s  {news}"
        if self._live is None:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)
            return
        self._news.append(line)
        self._draw()

    def show(self, moment: Moment) -> None:
        """Show what there is now."""
        now = time.monotonic()
        self._moment = moment
        self._rates.append((now, moment.processed))
        while len(self._rates) > 1 and self._rates[0][0] < now - RATE_OVER_S:
            self._rates.popleft()
        if self._live is not None:
            self._draw()
        elif now >= self._line_at and moment.put:
            self._line_at = now + LINE_EVERY_S
            self.say(self._line(moment))

    @property
    def _rate(self) -> float:
        (began, first), (ended, last) = self._rates[0], self._rates[-1]
        return max(0.0, (last - first) / (ended - began)) if ended > began else 0.0

    def _line(self, moment: Moment) -> str:
        return (
            f"put {moment.put:,}/{moment.total:,} · processed {moment.processed:,} ({self._rate:,.0f}/s) · "
            f"{_lags(moment)} · users {moment.users:,} · "
            f"endpoints {moment.endpoints:,} · dead letters {moment.dead_letters:,}"
        )

    def _draw(self) -> None:
        if self._live is None:
            return
        moment = self._moment
        bars = Table.grid(padding=(0, 2))
        for name, count in (("events put", moment.put), ("events processed", moment.processed)):
            bar = ProgressBar(total=max(1, moment.total), completed=min(count, moment.total), width=40)
            bars.add_row(Text(name, style="bold"), bar, f"{count:,} of {moment.total:,}")
        rate = self._rate if self._rates else 0.0
        figures = Table.grid(padding=(0, 3))
        figures.add_row(
            f"rate [b]{rate:,.0f}/s[/]", f"lag [b]{_seconds(moment, moment.lag_s)}[/]", f"users [b]{moment.users:,}[/]"
        )
        figures.add_row(
            f"endpoints with a score [b]{moment.endpoints:,}[/]",
            f"publish lag [b]{_seconds(moment, moment.publish_lag_s)}[/]",
            f"dead letters [b]{moment.dead_letters:,}[/]",
        )
        news = Text("\n".join(self._news), style="dim")
        title = f"engagement scoring · {self.elapsed_s:.0f} s"
        self._live.update(Panel(Group(bars, "", figures, "", news), title=title, width=100), refresh=True)


def _lags(moment: Moment) -> str:
    if not moment.worker_up:
        return "lag not measured: the worker is down"
    return f"lag {_seconds(moment, moment.lag_s)}, to publish {_seconds(moment, moment.publish_lag_s)}"


def _seconds(moment: Moment, value: float | None) -> str:
    if not moment.worker_up:
        return "worker down"
    return "no shard read yet" if value is None else f"{value:.1f} s"
