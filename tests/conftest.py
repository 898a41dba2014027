import os
os.environ.setdefault('MPLBACKEND', 'agg')
os.environ.setdefault('OMP_NUM_THREADS', '1')  # on tasks so small, threads wait for each other, and for whatever else is running

import pytest, signal
from pathlib import Path

root = Path(__file__).parent.parent
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts us in the background has it ignored, here and in our children

def pytest_collection_modifyitems(items):
    "fastai's star imports bring fastcore's `test_eq` and its like along: they are no tests of ours"
    items[:] = [o for o in items if o.function.__module__ == o.module.__name__]
    for o in items:
        if shares(o): o.add_marker(pytest.mark.xdist_group(o.module.__name__))

def shares(item):
    "Does it use what is made once for all tests of its module?"
    defs = [d for ds in item._fixtureinfo.name2fixturedefs.values() for d in ds]
    return any(d.scope != 'function' and d.baseid for d in defs)
