"""TinyWindow: the safety layer between a trading decision and the exchange."""

__version__ = "0.1.0"
