"""Sectors: which assets fall together, after CoinDesk's Digital Asset Classification Standard.

The seven sector names are the standard's own. The table is kept by hand for common assets and
is no copy of its list; configuration overrides it. An asset that is not in it is a sector of
its own, never part of a catch-all that would lump strangers together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["DACS", "SECTORS", "sector_of"]

_MEMBERS: Final[dict[str, str]] = {
    "Currency": "BTC WBTC CBBTC XBT BCH BSV DASH DCR DOGE LTC XLM XMR XNO XRP ZEC",
    "Smart Contract Platform": (
        "ETH WETH STETH WSTETH SOL ADA ALGO APT ARB ATOM AVAX BERA BNB CELO CFX CRO DOT EGLD "
        "EOS ETC FLOW FTM HBAR ICP INJ KAS KAVA KSM MATIC MINA MNT NEAR NEO OP POL QTUM ROSE "
        "S SEI STRK STX SUI TIA TON TRX VET WAVES XTZ ZIL ZK"
    ),
    "DeFi": (
        "1INCH AAVE BAL CAKE COMP CRV CVX DYDX ENA GMX HYPE JTO JUP KNC LDO LRC MKR ONDO "
        "PENDLE RAY RPL RUNE SKY SNX SUSHI UMA UNI YFI ZRX"
    ),
    "Computing": (
        "AKT API3 AR BAND FET FIL GLM GRT HNT IOTA IOTX LINK LPT OCEAN PYTH RENDER RNDR "
        "SC STORJ TAO TRB"
    ),
    "Culture & Entertainment": (
        "APE AUDIO AXS BAT BLUR BONK CHZ ENJ FLOKI GALA GMT ILV IMX MAGIC MANA PENGU PEPE "
        "SAND SHIB SUPER THETA TRUMP WIF"
    ),
    "Digitization": "CVC ENS ID WLD",
    "Stablecoin": (
        "BFUSD BUSD DAI EURC FDUSD FRAX GUSD LUSD PYUSD RLUSD TUSD USD1 USDC USDC.E USDD USDE "
        "USDG USDH USDP USDS USDT"
    ),
}

SECTORS: Final = tuple(_MEMBERS)
"""The sectors of the standard."""

DACS: Final[Mapping[str, str]] = {
    asset: sector for sector, assets in _MEMBERS.items() for asset in assets.split()
}
"""Sector by asset."""

_MULTIPLES: Final = ("1000000", "10000", "1000", "1M")
"""Prefixes of contracts on many units of a coin: 1000PEPE is PEPE."""


def sector_of(base: str, overrides: Mapping[str, str]) -> str:
    """Name the sector of an asset: the override, else the standard's, else one of its own.

    A contract on a thousand coins shares its coin's sector, so that spelling does not split it.
    """
    for asset in (base, _single(base)):
        sector = overrides.get(asset) or DACS.get(asset)
        if sector is not None:
            return sector
    return f"asset:{_single(base)}"


def _single(base: str) -> str:
    for multiple in _MULTIPLES:
        rest = base.removeprefix(multiple)
        if rest and rest != base:
            return rest
    return base
