"""A fake Kaggle on 127.0.0.1 for the unmodified client.

By hand, in a repository whose submission is for a drawn competition:

    python -m tools.kaggle_server

It prints what to export in another terminal, so that `python -m pipeline.upload -m "a try"` connects to it.
"""
