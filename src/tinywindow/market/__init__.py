"""Market data: candles, replays, the simulator, and the clocks that they move."""
