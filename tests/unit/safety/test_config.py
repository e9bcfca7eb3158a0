"""Configuration: precedence, exact reading, and every violation said at once."""

from __future__ import annotations

import itertools
import os
import pickle
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from tinywindow.safety.config import CircuitBreakerConfig, KillSwitchConfig, PositionLimits
from tinywindow.safety.config.layers import read_layers, using
from tinywindow.safety.config.section import Section
from tinywindow.safety.domain.limits import default_quotes
from tinywindow.safety.environment import (
    SECTIONS,
    TOP_LEVEL,
    known_variables,
    nearest,
    variable,
)
from tinywindow.safety.errors import ConfigurationError

KINDS: dict[str, type[Section]] = {
    "circuit_breaker": CircuitBreakerConfig,
    "position_limits": PositionLimits,
    "kill_switch": KillSwitchConfig,
}


@pytest.fixture(autouse=True)
def _bare_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in tuple(os.environ):
        if name.upper().startswith("TINYWINDOW_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def violations(make: Callable[[], object]) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        make()
    return caught.value.violations


# --- defaults and the requirement's own example ---------------------------------------------


def test_the_requirements_example_and_its_defaults() -> None:
    config = CircuitBreakerConfig(
        daily_loss_limit=-10.0,
        drawdown_limit=-15.0,
        max_trades_per_hour=50,
        error_rate_limit=10.0,
        consecutive_failure_limit=5,
    )
    assert config == CircuitBreakerConfig()
    assert config.daily_loss_limit == -10.0
    assert config.drawdown_limit == -15.0
    assert (config.max_trades_per_hour, config.consecutive_failure_limit) == (50, 5)
    assert config.error_rate_min_samples == 20
    assert (config.day_start, config.day_timezone) == ("00:00", "UTC")


def test_position_limits_have_the_requirements_defaults() -> None:
    limits = PositionLimits().to_limit_set()
    assert limits.max_position_size == 10_000
    assert limits.max_total_exposure == 50_000
    assert limits.max_leverage == 20
    assert limits.max_sector_exposure_pct == 40
    assert limits.max_sector_exposure == 20_000
    assert limits.allowed_symbols == {"BTC/USDT", "ETH/USDT", "SOL/USDT"}
    assert (limits.price_max_age_ms, limits.equity_max_age_ms) == (5_000, 60_000)
    assert (limits.reservation_ttl_ms, limits.position_max_age_ms) == (60_000, 5_000)
    assert limits.price_collar_pct == 5
    assert limits.quote_usd == default_quotes()


@pytest.mark.parametrize("kind", list(KINDS.values()))
def test_a_section_cannot_be_changed(kind: type[Section]) -> None:
    config = kind()
    name = next(iter(kind.model_fields))
    with pytest.raises(ValueError, match="frozen"):
        setattr(config, name, getattr(config, name))


def test_a_copy_is_checked_like_any_other() -> None:
    config = CircuitBreakerConfig(max_trades_per_hour=7)
    copy = config.model_copy(update={"daily_loss_limit": -8})
    assert (copy.max_trades_per_hour, copy.daily_loss_limit) == (7, -8)
    with pytest.raises(ConfigurationError):
        config.model_copy(update={"daily_loss_limit": 8})


@pytest.mark.parametrize("kind", list(KINDS.values()))
def test_a_section_survives_pickling(kind: type[Section]) -> None:
    assert pickle.loads(pickle.dumps(kind())) == kind()


# --- precedence ------------------------------------------------------------------------------


def test_object_over_environment_over_file_over_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tinywindow.toml").write_text(
        "[circuit_breaker]\ndaily_loss_limit = -7\ndrawdown_limit = -14\nmax_trades_per_hour = 40\n"
    )
    assert CircuitBreakerConfig().daily_loss_limit == -7
    monkeypatch.setenv("TINYWINDOW_CIRCUIT_BREAKER__DAILY_LOSS_LIMIT", "-8")
    monkeypatch.setenv("TINYWINDOW_CIRCUIT_BREAKER__DRAWDOWN_LIMIT", "-16.1")
    config = CircuitBreakerConfig(daily_loss_limit=-9)
    assert config.daily_loss_limit == -9
    assert config.drawdown_limit == -16.1
    assert config.max_trades_per_hour == 40
    assert config.consecutive_failure_limit == 5


def test_the_file_is_the_one_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tinywindow.toml").write_text("[kill_switch]\nclose_deadline = 1\n")
    other = tmp_path / "other.toml"
    other.write_text("[kill_switch]\nclose_deadline = 2.5\n")
    monkeypatch.setenv("TINYWINDOW_CONFIG", str(other))
    assert KillSwitchConfig().close_deadline == 2.5


@pytest.mark.parametrize("kind", list(KINDS.values()))
def test_every_field_can_come_from_the_environment(kind: type[Section]) -> None:
    """Each default, written as text, reads back as itself."""
    default = kind()
    section = str(kind.section)
    environ = {}
    for name in kind.model_fields:
        value = getattr(default, name)
        if isinstance(value, dict):
            value = "{" + ", ".join(f'"{key}": {inner}' for key, inner in value.items()) + "}"
        elif isinstance(value, tuple):
            value = ",".join(value)
        environ[variable(section, name)] = str(value)
    with using(read_layers(environ)):
        assert kind() == default


def test_a_table_from_code_replaces_the_files_whole(tmp_path: Path) -> None:
    (tmp_path / "tinywindow.toml").write_text('[position_limits.sectors]\nPEPE = "Memes"\n')
    assert PositionLimits().sectors == {"PEPE": "Memes"}
    assert PositionLimits(sectors={"WIF": "Dogs"}).sectors == {"WIF": "Dogs"}


# --- reading ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(-8, -8), (-8.1, -8.1), ("-8.1", -8.1), (Decimal("-8.1"), Decimal("-8.1")), ("-1", -1)],
)
def test_numbers_keep_what_was_given(value: object, wanted: object) -> None:
    assert CircuitBreakerConfig(daily_loss_limit=value).daily_loss_limit == wanted  # type: ignore[arg-type]


def test_limits_are_exact_decimals_however_they_came_in() -> None:
    for size in (0.1, "0.1", Decimal("0.1")):
        limits = PositionLimits(max_position_size=size)  # type: ignore[arg-type]
        assert limits.to_limit_set().max_position_size == Decimal("0.1")
    fine = PositionLimits(max_position_size=Decimal("10000.000000000000000001"))
    assert fine.to_limit_set().max_position_size == Decimal("10000.000000000000000001")


def test_breaker_limits_are_exact() -> None:
    limits = CircuitBreakerConfig(daily_loss_limit=-8.1, monitor_interval=0.25).to_limits()
    assert limits.daily_loss_limit == Decimal("-8.1")
    assert limits.drawdown_limit == -15
    assert limits.max_trades_per_hour == 50
    assert limits.consecutive_failure_limit == 5


def test_a_tight_limit_must_be_meant() -> None:
    (sentence,) = violations(lambda: CircuitBreakerConfig(daily_loss_limit=-0.1))
    assert "tight_limits" in sentence
    config = CircuitBreakerConfig(daily_loss_limit=-0.1, tight_limits=True)
    assert config.daily_loss_limit == -0.1
    assert CircuitBreakerConfig(daily_loss_limit=-1).daily_loss_limit == -1


@pytest.mark.parametrize("word", ["true", "True", "1", "yes", "on"])
def test_flags_from_the_environment(word: str) -> None:
    with using(read_layers({"TINYWINDOW_KILL_SWITCH__TWO_PERSON": word})):
        assert KillSwitchConfig().two_person is True


def test_symbols_may_be_a_list_a_set_or_text() -> None:
    for symbols in (["BTC/USDT"], {"BTC/USDT"}, "BTC/USDT", '["BTC/USDT"]', " BTC/USDT , BTC/USDT"):
        assert tuple(PositionLimits(allowed_symbols=symbols).allowed_symbols) == ("BTC/USDT",)


# --- everything that is wrong, at once ---------------------------------------------------------

JUNK = ("", "abc", "nan", "inf", "-inf", "1,000", "１０", "1e400", " 5", "0x10", "--5", "5%")
JUNK_VALUES = (True, None, b"5", float("nan"), float("inf"), Decimal("sNaN"), [], {}, 10**60)

BAD: dict[str, dict[str, tuple[object, ...]]] = {
    "circuit_breaker": {
        "daily_loss_limit": (0, 5, "0", -0.5, "-0.0001", -100.1, -1e9, *JUNK_VALUES),
        "drawdown_limit": (0, 15, -0.99, "-101", *JUNK_VALUES),
        "max_trades_per_hour": (0, -1, 1.5, "50.5", *JUNK_VALUES),
        "error_rate_limit": (0, -10, 100.1, "1000", *JUNK_VALUES),
        "error_rate_min_samples": (0, -20, 0.5, *JUNK_VALUES),
        "consecutive_failure_limit": (0, -5, 4.9, *JUNK_VALUES),
        "monitor_interval": (0, -1, 3601, 0.0001, *JUNK_VALUES),
        "equity_max_age": (0, -60, 86_401, *JUNK_VALUES),
        "day_start": ("24:00", "0:00", "00:60", "12", 0, None, "００:００", "00:00\n"),
        "day_timezone": ("Mars/Base", "", "../etc/passwd", "/etc/passwd", 5, None, "UTC\n"),
        "tight_limits": ("maybe", 2, None, 1.0, "truee", b"1"),
        "cancel_entries_on_trip": ("", "2", [], "none"),
    },
    "position_limits": {
        "max_position_size": (0, -1, "0.0", *JUNK_VALUES),
        "max_total_exposure": (0, -50_000, *JUNK_VALUES),
        "max_leverage": (0, -20, *JUNK_VALUES),
        "max_sector_exposure_pct": (0, -40, 100.01, "101", *JUNK_VALUES),
        "allowed_symbols": ((), "", "btc/usdt", "BTCUSDT", ("BTC/USDT", "x"), 5, None, "[1", [1]),
        "price_max_age": (0, -5, 86_401, *JUNK_VALUES),
        "equity_max_age": (0, "-60", *JUNK_VALUES),
        "price_collar_pct": (0, -5, 101, *JUNK_VALUES),
        "reservation_ttl": (0, -60, 0.00001, *JUNK_VALUES),
        "position_max_age": (0, -5, *JUNK_VALUES),
        "sectors": ("x", 5, None, {"btc": "A"}, {"BTC": ""}, {"BTC": 5}, {"BTC": "a\nb"}, "[]"),
        "quote_usd": ("x", 5, None, {"usdt": 1}, {"USDT": 0}, {"USDT": "nan"}, {"USDT": True}),
    },
    "kill_switch": {
        "two_person": ("maybe", 2, None),
        "cancel_entries_on_trip": ("", 7),
        **{
            name: (0, -1, 86_401, *JUNK_VALUES)
            for name in SECTIONS["kill_switch"]
            if name not in {"two_person", "cancel_entries_on_trip"}
        },
    },
}


def bad_pairs() -> Iterator[tuple[str, str, object]]:
    for section, fields in BAD.items():
        for name, values in fields.items():
            for value in values:
                yield section, name, value


def test_the_table_of_bad_values_names_every_field_and_is_long_enough() -> None:
    for section, kind in KINDS.items():
        assert set(BAD[section]) == set(kind.model_fields) == set(SECTIONS[section])
    assert len(list(bad_pairs())) >= 200


@pytest.mark.parametrize(("section", "name", "value"), list(bad_pairs()))
def test_a_bad_value_is_one_sentence_that_names_the_field(
    section: str, name: str, value: object
) -> None:
    (sentence,) = violations(lambda: KINDS[section](**{name: value}))
    assert sentence.startswith(f"{section}.{name}: ")
    assert "wanted" in sentence
    assert sentence.isascii()
    assert sentence.isprintable()
    assert len(sentence) < 500


@pytest.mark.parametrize("section", list(KINDS))
@pytest.mark.parametrize("offset", range(20))
def test_all_bad_values_together_are_all_said_at_once(section: str, offset: int) -> None:
    """Each round takes another bad value of every field."""
    given = {name: values[offset % len(values)] for name, values in BAD[section].items()}
    said = violations(lambda: KINDS[section](**given))
    assert sorted(s.partition(":")[0] for s in said) == sorted(
        f"{section}.{name}" for name in given
    )


@pytest.mark.parametrize(
    ("first", "second"), list(itertools.combinations(BAD["position_limits"], 2))
)
def test_any_two_bad_fields_are_both_said(first: str, second: str) -> None:
    bad = BAD["position_limits"]
    said = violations(lambda: PositionLimits(**{first: bad[first][0], second: bad[second][-1]}))
    assert [s.partition(":")[0] for s in said] == [
        f"position_limits.{name}" for name in SECTIONS["position_limits"] if name in {first, second}
    ]


@pytest.mark.parametrize("text", JUNK)
@pytest.mark.parametrize("name", ["daily_loss_limit", "max_trades_per_hour", "monitor_interval"])
def test_junk_in_the_environment_is_said_with_its_variable(name: str, text: str) -> None:
    key = variable("circuit_breaker", name)
    with using(read_layers({key: text})):
        (sentence,) = violations(CircuitBreakerConfig)
    assert f"environment variable {key}" in sentence


def test_a_bad_value_in_the_file_is_said_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "tinywindow.toml").write_text("[circuit_breaker]\ndaily_loss_limit = true\n")
    (sentence,) = violations(CircuitBreakerConfig)
    assert "tinywindow.toml [circuit_breaker]" in sentence


def test_an_unknown_field_names_the_nearest() -> None:
    (sentence,) = violations(lambda: CircuitBreakerConfig(daily_los_limit=-8))  # type: ignore[call-arg]
    assert sentence == (
        "circuit_breaker.daily_los_limit: no such field; the nearest known one is daily_loss_limit"
    )


def test_code_environment_and_file_are_all_said_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tinywindow.toml").write_text(
        "dtabase = 1\n[circuit_breaker]\ndrawdown_limit = 5\nnonsense = 1\n[nothing]\n"
    )
    monkeypatch.setenv("TINYWINDOW_CIRCUIT_BREAKER__MAX_TRADES_PER_HOUR", "many")
    monkeypatch.setenv("TINYWINDOW_CIRCUIT_BRAKER__DRAWDOWN_LIMIT", "-15")
    said = violations(lambda: CircuitBreakerConfig(daily_loss_limit=3))
    assert len(said) == 7
    for part in ("daily_loss_limit", "drawdown_limit", "many", "dtabase", "nonsense", "nothing"):
        assert any(part in sentence for sentence in said), part
    assert any("CIRCUIT_BREAKER__DRAWDOWN_LIMIT" in sentence for sentence in said)


# --- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("TINYWINDOW_CIRCUIT_BREAKER__DAILY_LOSS", "TINYWINDOW_CIRCUIT_BREAKER__DAILY_LOSS_LIMIT"),
        ("TINYWINDOW_DAILY_LOSS_LIMIT", "DAILY_LOSS_LIMIT"),
        ("tinywindow_redis", "TINYWINDOW_REDIS"),
        ("TINYWINDOW_POSITION_LIMIT__MAX_LEVERAGE", "TINYWINDOW_POSITION_LIMITS__MAX_LEVERAGE"),
    ],
)
@pytest.mark.parametrize("kind", list(KINDS.values()))
def test_an_unknown_variable_is_refused_with_the_nearest(
    kind: type[Section], name: str, near: str
) -> None:
    with using(read_layers({name: "hunter2"})):
        (sentence,) = violations(kind)
    assert name in sentence
    assert near in sentence
    assert "hunter2" not in sentence


def test_the_programs_own_variables_are_no_error_for_a_library_user() -> None:
    environ = dict.fromkeys(known_variables() - {variable(None, "config")}, "x")
    own = {name for name in environ if "__" in name}
    others = {name: "x" for name in environ if name not in own}
    with using(read_layers({**others, "TINYWINDOW_TEST_VALKEY": "/x", "HOME": "/"})):
        assert CircuitBreakerConfig() == CircuitBreakerConfig()


def test_nearest_gives_nothing_for_what_is_like_nothing() -> None:
    assert nearest("zzzz", TOP_LEVEL) is None


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"x = [", "is no TOML"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"circuit_breaker = 5", "circuit_breaker is not a table"),
        (b"a = " + b"[" * 5000, "is no TOML"),
    ],
)
def test_a_file_that_cannot_be_read_is_said(tmp_path: Path, content: bytes, part: str) -> None:
    (tmp_path / "tinywindow.toml").write_bytes(content)
    said = violations(KillSwitchConfig)
    assert any(part in sentence for sentence in said)


def test_a_file_that_is_named_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYWINDOW_CONFIG", "/nowhere/x.toml")
    (sentence,) = violations(KillSwitchConfig)
    assert "there is no such file" in sentence
