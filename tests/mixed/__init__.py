"""Two releases in one cluster: the one before this one, out of the history, and this one.

    python -m tests.mixed

Three nodes are rolled from the release before to this one, back, and forth again, under a load of
clients of both. See story.py for what is done, and docs/testing.md.
"""
