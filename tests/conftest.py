import os
os.environ.setdefault('MPLBACKEND', 'agg')

from pathlib import Path
import pytest

root = Path(__file__).parent.parent

@pytest.fixture
def golden():
    "Folder of fastai 0.7's own figures"
    path = root.parent/'shared'/'golden'
    if not path.exists(): pytest.skip(f"fastai 0.7's figures are not on this machine: no {path}")
    return path

def pytest_collection_modifyitems(items):
    "fastai's star imports bring fastcore's `test_eq` and its like along: they are no tests of ours"
    items[:] = [o for o in items if o.function.__module__ == o.module.__name__]
