"""The shell around the core: awaits, time-outs and logging; every decision is the domain's."""
