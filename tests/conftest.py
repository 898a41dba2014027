import os
os.environ.setdefault('MPLBACKEND', 'agg')
os.environ.setdefault('OMP_NUM_THREADS', '1')  # on tasks so small, threads wait for each other, and for whatever else is running

import signal
from pathlib import Path

root = Path(__file__).parent.parent
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts us in the background has it ignored, here and in our children

def pytest_collection_modifyitems(items):
    "fastai's star imports bring fastcore's `test_eq` and its like along: they are no tests of ours"
    items[:] = [o for o in items if o.function.__module__ == o.module.__name__]
