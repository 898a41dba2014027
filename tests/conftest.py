import os
os.environ.setdefault('MPLBACKEND', 'agg')
# on tasks so small, threads wait for each other, and for whatever else is running
os.environ.setdefault('OMP_NUM_THREADS', '1')

import pytest, signal
from pathlib import Path

root = Path(__file__).parent.parent
needs_fork = pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs os.fork, which Windows does not have')
# a shell that starts the tests in the background has them and their children ignore Ctrl-C
signal.signal(signal.SIGINT, signal.default_int_handler)

@pytest.fixture(autouse=True)
def close_figures():
    "Close the figures of a test, so that they do not add up."
    yield
    from matplotlib import pyplot as plt
    plt.close('all')

def pytest_collection_modifyitems(items):
    "fastai's star imports bring fastcore's `test_eq` and its like along, which are no tests of this package"
    items[:] = [o for o in items if o.function.__module__ == o.module.__name__]
    for o in items:
        if shares(o): o.add_marker(pytest.mark.xdist_group(o.module.__name__))

def shares(item):
    "Does it use a fixture that is made once for several tests?"
    defs = [d for ds in item._fixtureinfo.name2fixturedefs.values() for d in ds]
    return any(d.scope != 'function' and d.baseid for d in defs)
