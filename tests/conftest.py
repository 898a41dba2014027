import os
os.environ.setdefault('MPLBACKEND', 'agg')

from pathlib import Path

root = Path(__file__).parent.parent

def pytest_collection_modifyitems(items):
    "fastai's star imports bring fastcore's `test_eq` and its like along: they are no tests of ours"
    items[:] = [o for o in items if o.function.__module__ == o.module.__name__]
