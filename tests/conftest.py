import os
os.environ.setdefault('MPLBACKEND', 'agg')
# on tasks so small, threads wait for each other, and for whatever else is running
os.environ.setdefault('OMP_NUM_THREADS', '1')

import gc, pytest, re, signal
from pathlib import Path

root = Path(__file__).parent.parent
needs_fork = pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs os.fork, which Windows does not have')

def recipe_of_readme(epochs, more=''):
    "Return the first script of README with smaller digits, a shorter range test and so many epochs."
    text = (root/'README.md').read_text(encoding='utf-8')
    script = re.search('```python\n(from fastai_clrbeta.*?)```', text, re.S)[1]
    changes = {'digits_dls(bs=128,':'digits_dls(bs=64, size=8,', 'lr_find_val()':'lr_find_val(num_it=25)',
               'cycle_len=15':f'cycle_len={epochs}{more}'}
    for old,new in changes.items():
        assert script.count(old) == 1, f'{old} in\n{script}'
        script = script.replace(old, new)
    return script

# what a killed process has written is there without it, too: only a power cut, which no test has, needs it
os.fsync = lambda fd: None
# a shell that starts the tests in the background has them and their children ignore Ctrl-C
signal.signal(signal.SIGINT, signal.default_int_handler)

def pytest_sessionstart(session):
    "Prepare torch, in the processes that run tests and not in the one that starts them."
    config = session.config
    if getattr(config.option, 'dist', 'no') != 'no' and not hasattr(config, 'workerinput'): return
    from processes import prepare_torch
    prepare_torch()

def pytest_sessionfinish(session):
    gc.freeze()  # pytest searches for garbage five times at the end, which takes seconds. It finds none now.

@pytest.fixture(autouse=True)
def close_figures():
    "Close the figures of a test, so that they do not add up."
    yield
    from matplotlib import pyplot as plt
    plt.close('all')

@pytest.fixture
def short(monkeypatch):
    "Trials of 12 steps in place of 100"
    monkeypatch.setattr('fastai_clrbeta.lr_find.trial_steps', 12)

def pytest_configure(config): config.option.loadscopereorder = False  # xdist takes the tests in our order

@pytest.hookimpl(tryfirst=True)  # xdist reads the groups
def pytest_collection_modifyitems(items):
    """Leave out fastcore's `test_eq` and its like, which fastai's star imports bring along. Begin with what
    takes long, so that all workers end at the same time: groups, and slow tests."""
    items[:] = [o for o in items if o.function.__module__ == o.module.__name__]
    for o in items:
        if shares(o): o.add_marker(pytest.mark.xdist_group(o.module.__name__))
        if 'build' in o.fixturenames: o.add_marker(pytest.mark.slow)  # it needs the site
    items.sort(key=lambda o: (not shares(o), o.get_closest_marker('slow') is None))

def shares(item):
    "Does it use a fixture that is made once for several tests?"
    defs = [d for ds in item._fixtureinfo.name2fixturedefs.values() for d in ds]
    return any(d.scope != 'function' and d.baseid for d in defs)
