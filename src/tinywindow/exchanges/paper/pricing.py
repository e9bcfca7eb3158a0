"""What a fill costs: spread, size-dependent slippage and fee. Pure arithmetic.

A market order buys at

    price x (1 + (half_spread + Y x sigma x sqrt(notional / daily_volume)) / 10,000)

and sells at the mirror image, with half_spread and the daily volatility sigma in basis points.
The second term is the square-root law of market impact: Toth et al., "Anomalous price impact
and the critical nature of liquidity in financial markets", Physical Review X 1, 021006 (2011);
Donier and Bonart, "A million metaorder analysis of market impact on the Bitcoin", Market
Microstructure and Liquidity 1 (2015). Y is of the order of one. The impact does not last: the
next order starts from the board's price again.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Final

from tinywindow.exchanges.paper.config import PaperConfig
from tinywindow.safety.domain.money import ONE
from tinywindow.safety.domain.order import Side

__all__ = ["crosses", "execution_price", "fee_of", "slippage_bps", "touch"]

_BPS: Final = Decimal(10_000)
_FEE_STEP: Final = Decimal("0.00000001")
_ROOT: Final = Context(prec=20)
_LEAST_FACTOR: Final = Decimal("0.01")
"""An order of any size still sells for a hundredth of the price: the formula is no longer true
out there, and a price must stay above zero."""


def slippage_bps(config: PaperConfig, base: str, notional: Decimal) -> Decimal:
    """Half-spread and impact of a market order of `notional` USD, in basis points."""
    share = _ROOT.sqrt(notional / config.volume_usd(base))
    return config.half_spread_bps + config.impact_coefficient * config.daily_volatility_bps * share


def touch(config: PaperConfig, side: Side, price: Decimal) -> Decimal:
    """The best price for an order of no size: the ask for BUY, the bid for SELL."""
    return price * max(_LEAST_FACTOR, ONE + side.sign * config.half_spread_bps / _BPS)


def crosses(config: PaperConfig, side: Side, limit: Decimal, price: Decimal) -> bool:
    """Say whether a limit order can trade while the board's price is `price`."""
    best = touch(config, side, price)
    return best <= limit if side is Side.BUY else best >= limit


def execution_price(
    config: PaperConfig,
    base: str,
    side: Side,
    amount: Decimal,
    price: Decimal,
    step: Decimal | None,
) -> Decimal:
    """The average price of a market order, in quote units, rounded against us to the step."""
    factor = ONE + side.sign * slippage_bps(config, base, amount * price) / _BPS
    exact = price * max(_LEAST_FACTOR, factor)
    if step is None:
        # Eight significant digits, the precision that venues without a step commonly show.
        step = Decimal(1).scaleb(exact.adjusted() - 7)
    rounding = ROUND_CEILING if side is Side.BUY else ROUND_FLOOR
    return max(step, (exact / step).to_integral_value(rounding) * step)


def fee_of(config: PaperConfig, notional: Decimal, *, spot: bool, maker: bool) -> Decimal:
    """The fee on a fill of `notional`, in quote units, rounded up to eight places."""
    exact = notional * config.fee_bps(spot=spot, maker=maker) / _BPS
    return exact.quantize(_FEE_STEP, rounding=ROUND_CEILING)
