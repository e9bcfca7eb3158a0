"""Settings of the whole program: every section, read at once, with where each value came from.

Precedence: what the command line or code says, then the environment, then `tinywindow.toml`,
then the defaults. Everything that is wrong is said in one `ConfigurationError`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Self, TypeVar

from pydantic import Field, PlainValidator

from tinywindow.market.scenarios import SCENARIOS
from tinywindow.safety.config import CircuitBreakerConfig, KillSwitchConfig, PositionLimits, rules
from tinywindow.safety.config.layers import Layers, current_layers, read_layers, using
from tinywindow.safety.config.rules import Number, Wrong
from tinywindow.safety.config.section import Explained, Section
from tinywindow.safety.domain.money import ZERO
from tinywindow.safety.domain.text import exact_text
from tinywindow.safety.domain.validation import is_venue_name
from tinywindow.safety.errors import ConfigurationError
from tinywindow.safety.stores.pg.address import POSTGRES_SCHEMES

__all__ = [
    "DATABASE_FILE",
    "PAPER_VENUE",
    "LoggingSettings",
    "PaperSettings",
    "RunOptions",
    "RunSettings",
    "Settings",
    "redacted",
]

DATABASE_FILE: Final = "tinywindow.db"
PAPER_VENUE: Final = "paper"
STRATEGIES: Final = ("momentum", "claude", "hold")
SEED_MAX: Final = 2**63 - 1
PORT_MAX: Final = 65_535
LAG_MAX_S: Final = 60
_HOST: Final = re.compile(r"[A-Za-z0-9.:\-]{1,255}")
_REDIS_SCHEMES: Final = (
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
)
"""As `redis_links.SCHEMES`, which would load redis-py; a test compares them."""
_CREDENTIALS: Final = re.compile(r"(?<=://)[^/@]*@|(?<=[?&])[^=&]*(?:pass|secret|key)[^=&]*=[^&]*")

_LAG: Final = rules.NumberRule(
    f"seconds from 0 to {LAG_MAX_S}, in steps of 0.001", low=ZERO, high=Decimal(LAG_MAX_S)
)
_SHARE: Final = rules.NumberRule("a share from 0 to 1", low=ZERO, high=Decimal(1))

S = TypeVar("S", bound=Section)


def redacted(url: str) -> str:
    """A URL without what it holds of credentials."""
    return _CREDENTIALS.sub("***@", url)


def _host(value: object) -> str:
    text = exact_text(value)
    if text is None or not _HOST.fullmatch(text):
        raise Wrong("is no name or address of a host", "an address to listen on, such as 127.0.0.1")
    return text


def _venue(value: object) -> str:
    text = exact_text(value)
    if text is None or not is_venue_name(text):
        raise Wrong("is no venue's name", "1 to 32 of the characters A-Z a-z 0-9 _ . -")
    return text


def _lag(value: object) -> float:
    number = _LAG.decimal(value)
    if number * 1000 != (number * 1000).to_integral_value():
        raise Wrong("is finer than a millisecond", _LAG.wanted)
    return float(number)


def _share(value: object) -> float:
    return float(_SHARE.decimal(value))


def _url(*schemes: str) -> rules.Rule:
    wanted = "a URL that starts with " + " or ".join(f"{scheme}://" for scheme in schemes)

    def read(value: object) -> str | None:
        text = exact_text(value)
        if value is None or text == "":
            return None
        if text is None or not text.isprintable() or text.partition("://")[0] not in schemes:
            raise Wrong("is of another form", wanted)
        if text.partition("://")[2] == "":
            raise Wrong("names nothing after its scheme", wanted)
        return text

    return read


def _folder(value: object) -> Path:
    wanted = "the path of a folder"
    text = str(value) if isinstance(value, Path) else exact_text(value)
    if not text or "\0" in text:
        raise Wrong("is no path", wanted)
    path = Path(text).expanduser()
    if path.exists() and not path.is_dir():
        raise Wrong("is not a folder", wanted)
    return path


def _default_data_dir() -> Path:
    return Path("~/.local/share/tinywindow").expanduser()


class RunSettings(Section):
    """What `tinywindow run` does. Durations are seconds, money is US dollars.

    Attributes:
        strategy: who decides: momentum, claude, or hold.
        scenario: the name of the simulated market's scenario.
        seed: the number from which the simulated market follows.
        symbols: the unified symbols that are traded.
        venue: the paper venue's name; one for each account that shares a database.
        balance: what a new paper account starts with.
        cycle_interval: pause between two trading cycles.
        host: the address that the API listens on; this version has no API, so it does nothing.
        port: its port, which does nothing yet either; 0 takes a free one.
    """

    section: ClassVar[str | None] = "run"

    strategy: Annotated[str, PlainValidator(rules.choice(*STRATEGIES))] = "momentum"
    scenario: Annotated[str, PlainValidator(rules.choice(*SCENARIOS))] = "crash"
    seed: Annotated[
        int,
        PlainValidator(rules.whole(f"a whole number from 0 to {SEED_MAX}", low=0, high=SEED_MAX)),
    ] = 1
    symbols: Annotated[Collection[str], PlainValidator(rules.symbols)] = (
        "BTC/USDT",
        "ETH/USDT",
        "SOL/USDT",
    )
    venue: Annotated[str, PlainValidator(_venue)] = PAPER_VENUE
    balance: Annotated[Number, PlainValidator(rules.positive("US dollars above 0"))] = 20_000
    cycle_interval: Annotated[float, PlainValidator(rules.seconds())] = 1.0
    host: Annotated[str, PlainValidator(_host)] = "127.0.0.1"
    port: Annotated[
        int,
        PlainValidator(rules.whole(f"a port from 0 to {PORT_MAX}", low=0, high=PORT_MAX)),
    ] = 8700


class PaperSettings(Section):
    """How the paper venue misbehaves; as they stand by default, it does not.

    Chance follows from `run.seed`. Shares are from 0 to 1.

    Attributes:
        latency: seconds before an answer of the venue; a replay's venue answers at once.
        latency_jitter: the most seconds that chance adds to that.
        reject_chance: share of orders that the venue turns away.
        limit_partial_chance: share of limit orders' fills that are partial; the rest rests.
        market_partial_chance: share of market orders that fill in part; the rest is cancelled.
    """

    section: ClassVar[str | None] = "paper"

    latency: Annotated[float, PlainValidator(_lag)] = 0.0
    latency_jitter: Annotated[float, PlainValidator(_lag)] = 0.0
    reject_chance: Annotated[float, PlainValidator(_share)] = 0.0
    limit_partial_chance: Annotated[float, PlainValidator(_share)] = 0.0
    market_partial_chance: Annotated[float, PlainValidator(_share)] = 0.0


class LoggingSettings(Section):
    """How the program logs, always to standard error.

    Attributes:
        level: the least level that is written.
        format: `text` for people, `json` for programs, one object a line.
    """

    section: ClassVar[str | None] = "logging"

    level: Annotated[
        str, PlainValidator(rules.choice("debug", "info", "warning", "error", "critical"))
    ] = "info"
    format: Annotated[str, PlainValidator(rules.choice("text", "json"))] = "text"


class Settings(Section):
    """Everything that is configured. Read with `Settings.load`.

    Attributes:
        data_dir: where the database, the file `KILL`, the journal and the anchor live.
        database: the database's URL; None is `tinywindow.db` in the data directory.
        redis: the URL of a shared Redis; None is none.
        circuit_breaker, position_limits, kill_switch, run, paper, logging: the sections.
    """

    secrets: ClassVar[frozenset[str]] = frozenset({"database", "redis"})

    data_dir: Annotated[Path, PlainValidator(_folder)] = Field(default_factory=_default_data_dir)
    database: Annotated[
        str | None,
        PlainValidator(_url("sqlite", "sqlite+aiosqlite", *POSTGRES_SCHEMES)),
    ] = Field(default=None, repr=False)
    redis: Annotated[str | None, PlainValidator(_url(*_REDIS_SCHEMES))] = Field(
        default=None, repr=False
    )
    circuit_breaker: CircuitBreakerConfig = Field(default_factory=CircuitBreakerConfig)
    position_limits: PositionLimits = Field(default_factory=PositionLimits)
    kill_switch: KillSwitchConfig = Field(default_factory=KillSwitchConfig)
    run: RunSettings = Field(default_factory=RunSettings)
    paper: PaperSettings = Field(default_factory=PaperSettings)
    logging: LoggingSettings = Field(default_factory=LoggingSettings)

    @classmethod
    def load(
        cls,
        *,
        config: str | Path | None = None,
        environ: Mapping[str, str] | None = None,
        data_dir: str | Path | None = None,
        **given: object,
    ) -> Self:
        """Read everything.

        Args:
            config: the configuration file; what `TINYWINDOW_CONFIG` says, or
                `./tinywindow.toml` where there is one, when absent.
            environ: the environment; this process's when absent.
            data_dir: the data directory, over every other source.
            given: other top-level fields, over every other source.

        Raises:
            ConfigurationError: with every violation of every section at once.
        """
        layers = read_layers(environ, file=config)
        if data_dir is not None:
            given["data_dir"] = data_dir
        return cls.from_layers(layers, **given)

    @classmethod
    def from_layers(cls, layers: Layers, **given: object) -> Self:
        """Read everything from layers that were read before; see `load`."""
        values: dict[str, Any] = dict(given)
        violations: list[str] = list(layers.violations)
        clean = Layers(layers.environ, layers.document, layers.file)
        with using(clean):
            for name, kind in _SECTIONS.items():
                if name not in values:
                    _collect(values, name, kind, violations)
            try:
                settings = cls(**values)
            except ConfigurationError as error:
                raise ConfigurationError(dict.fromkeys([*violations, *error.violations])) from None
        if violations:
            raise ConfigurationError(dict.fromkeys(violations))
        return settings

    @property
    def db_connection(self) -> str | Path:
        """What every safety object takes as its database."""
        return self.database or self.data_dir / DATABASE_FILE

    @property
    def sqlite_path(self) -> Path | None:
        """The SQLite file, or None where the database is another."""
        if self.database is None:
            return self.data_dir / DATABASE_FILE
        scheme, _, rest = self.database.partition("://")
        return Path(rest.partition("?")[0][1:]) if scheme.startswith("sqlite") else None

    def explain(
        self, layers: Layers | None = None, *, given: frozenset[str] = frozenset()
    ) -> list[Explained]:
        """Every value in force and where it came from; credentials are left out."""
        layers = current_layers() if layers is None else layers
        rows = super().explain(layers, given=given)
        own = [row for row in rows if row.name not in _SECTIONS]
        for name in _SECTIONS:
            section: Section = getattr(self, name)
            own.extend(section.explain(layers))
        return own

    def shown(self, name: str) -> str | None:
        """A URL among the settings as it may be shown, without its credentials."""
        url: str | None = getattr(self, name)
        return None if url is None else redacted(url)


_SECTIONS: Final[Mapping[str, type[Section]]] = {
    "circuit_breaker": CircuitBreakerConfig,
    "position_limits": PositionLimits,
    "kill_switch": KillSwitchConfig,
    "run": RunSettings,
    "paper": PaperSettings,
    "logging": LoggingSettings,
}


def _collect(values: dict[str, Any], name: str, kind: type[Section], violations: list[str]) -> None:
    """Read one section; where it is wrong, note why, and let a default stand in meanwhile."""
    try:
        values[name] = kind()
    except ConfigurationError as error:
        violations.extend(error.violations)
        with using(Layers()):
            values[name] = kind()


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line of `tinywindow run` adds to the settings.

    Attributes:
        strategy: over `run.strategy` where given.
        replay: candle files to replay instead of the simulated market.
        symbol: the symbol of a replayed file whose name does not tell it.
        speed: how many times faster than real time a replay runs; None is as fast as it can.
        exit_at_end: end the process when the replay ends.
        port: over `run.port` where given; this version has no API, so it does nothing.
        api: serve the API and the console, once there are any.
        live: the venue to trade at for real; None is the paper venue.
        adopt_limits, change_limits: what to do where the store holds other limits.
    """

    strategy: str | None = None
    replay: tuple[Path, ...] = ()
    symbol: str | None = None
    speed: Decimal | None = Decimal(1)
    exit_at_end: bool = False
    port: int | None = None
    api: bool = True
    live: str | None = None
    adopt_limits: bool = False
    change_limits: bool = False
