"""Strategies: they see the market and propose; they hold no door to an exchange."""
