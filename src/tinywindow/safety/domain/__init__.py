"""The pure core: no await, no clock, no randomness, no logging, no I/O, no float."""
