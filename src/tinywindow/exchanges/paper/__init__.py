"""The paper venue: a durable exchange of play money, for trials, tests and demonstrations."""

from tinywindow.exchanges.paper.board import PriceBoard
from tinywindow.exchanges.paper.config import PaperConfig
from tinywindow.exchanges.paper.exchange import PaperExchange
from tinywindow.exchanges.paper.faults import (
    CallFault,
    Faults,
    NoFaults,
    PlaceFault,
    ScriptedFaults,
)
from tinywindow.exchanges.paper.verify import discrepancies

__all__ = [
    "CallFault",
    "Faults",
    "NoFaults",
    "PaperConfig",
    "PaperExchange",
    "PlaceFault",
    "PriceBoard",
    "ScriptedFaults",
    "discrepancies",
]
