"""Every asset has exactly one sector."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinywindow.safety.domain import sectors
from tinywindow.safety.domain.sectors import DACS, SECTORS, sector_of


@pytest.mark.parametrize(
    ("base", "sector"),
    [
        ("BTC", "Currency"),
        ("XRP", "Currency"),
        ("ETH", "Smart Contract Platform"),
        ("SOL", "Smart Contract Platform"),
        ("UNI", "DeFi"),
        ("1INCH", "DeFi"),
        ("LINK", "Computing"),
        ("MANA", "Culture & Entertainment"),
        ("ENS", "Digitization"),
        ("USDC", "Stablecoin"),
    ],
)
def test_a_common_asset_is_in_its_sector_of_the_standard(base: str, sector: str) -> None:
    assert sector_of(base, {}) == sector


def test_the_requirements_three_symbols_are_not_all_in_one_sector() -> None:
    assert len({sector_of(base, {}) for base in ("BTC", "ETH", "SOL")}) == 2


def test_the_sectors_are_the_seven_of_the_standard() -> None:
    assert len(SECTORS) == 7
    assert set(DACS.values()) == set(SECTORS)


def test_no_asset_is_in_two_sectors() -> None:
    listed = " ".join(sectors._MEMBERS.values()).split()

    assert len(listed) == len(set(listed)) == len(DACS)


def test_an_unknown_asset_is_a_sector_of_its_own() -> None:
    assert sector_of("XYZ", {}) == "asset:XYZ"
    assert sector_of("XYZ-TSLA", {}) == "asset:XYZ-TSLA"
    assert sector_of("ABC", {}) != sector_of("XYZ", {})


def test_an_override_wins_over_the_standard() -> None:
    assert sector_of("SOL", {"SOL": "Fast chains"}) == "Fast chains"
    assert sector_of("XYZ", {"XYZ": "DeFi"}) == "DeFi"


@pytest.mark.parametrize("base", ["1000PEPE", "10000PEPE", "1000000PEPE", "1MPEPE"])
def test_a_contract_on_many_coins_shares_the_sector_of_its_coin(base: str) -> None:
    assert sector_of(base, {}) == sector_of("PEPE", {})
    assert sector_of(base, {"PEPE": "Memes"}) == "Memes"
    assert sector_of(base, {"PEPE": "Memes", base: "Other"}) == "Other"


@pytest.mark.parametrize("multiple", ["1000", "1M"])
def test_an_unknown_multiple_shares_the_sector_of_its_coin(multiple: str) -> None:
    assert sector_of(f"{multiple}XYZ", {}) == "asset:XYZ"
    assert sector_of(multiple, {}) == f"asset:{multiple}"


@given(st.text(min_size=1, max_size=25))
def test_every_asset_has_a_sector(base: str) -> None:
    sector = sector_of(base, {})

    assert sector in SECTORS or sector.startswith("asset:")
