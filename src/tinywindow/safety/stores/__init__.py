"""The ports made real; every store passes the same contract tests."""
