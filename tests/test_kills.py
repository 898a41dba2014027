"A run that is killed or interrupted again and again ends with the same weights, wherever it runs"
import json, signal, time
from functools import partial
import pytest
import processes
from conftest import needs_fork, root
from helpers import fit, learner

pytestmark = pytest.mark.slow  # real processes

def run_cases(folder, names):
    import kills  # it needs fork
    kills.main(folder, *names)

of_precision = 'no instructions for bf16'

def check(folder, *names, terminal=False):
    "Run these cases of kills.py in one process, in a pipe or a terminal. Return the number of faults"
    _,seen = processes.run(run_cases, folder, names, folder=root, terminal=terminal)
    assert (folder/'results.json').exists(), seen[-3000:]
    res = json.loads((folder/'results.json').read_text(encoding='utf-8'))
    assert [*res] == [*names] and '%' in seen  # the progress bar was there
    for name,o in res.items():
        done,*struck,resumed = o['codes']
        assert set(done+resumed) == {0} and o['same'] and set(o['epochs']) == {2}, (name, o, seen[-3000:])
        how = 130 if name.startswith('Ctrl-C') else -signal.SIGKILL
        assert all(how in codes for codes in struck), (name, o)
        told = [o for o in sum(o['told'], []) if of_precision not in o]
        assert not told, (name, told)  # all that such runs hold is saved
    return sum(len(o['codes'])-2 for o in res.values())

@needs_fork
def test_loaders_of_fastai_and_of_torch_with_and_without_workers(tmp_path, record_property):
    "In a pipe, two or three kills each"
    workers = 'no worker','two workers'
    n = check(tmp_path, *(f'{lib}, {o}' for lib in ('fastai','torch') for o in workers))
    record_property('times', n)

@needs_fork
def test_kills_at_each_step(tmp_path, record_property):
    n = check(tmp_path, 'at each step', terminal=True)
    assert n == 11
    record_property('times', n)

@needs_fork
def test_learners_of_every_kind(tmp_path, record_property):
    "In a terminal, two kills each"
    kinds = 'tabular','collab','language model','U-Net','bf16','three groups','gradient scaler'
    record_property('times', check(tmp_path, *kinds, terminal=True))

@needs_fork
def test_two_processes(tmp_path, record_property):
    "Both or one of them, five times in a row, and with loader workers. One process cannot resume their run"
    record_property('times', check(tmp_path, 'two processes', 'two processes, workers'))
    learn = learner(tmp_path/'two processes/struck')
    with pytest.raises(ValueError, match='is of a run in 2 processes, and this one has 1'):
        fit(learn, checkpoint='run', resume=True)
    assert learn.opt is None

@needs_fork
def test_ctrl_c(tmp_path):
    "It reaches all processes at once: loader workers, too, and the other process of a distributed run"
    kinds = 'two workers','two processes'
    check(tmp_path, 'Ctrl-C', *(f'Ctrl-C, {o}' for o in kinds), terminal=True)

# What a notebook has in its cells
setup = f'''
import sys
sys.path.insert(0, {str(root/'tests')!r})
from kills import *
import hashlib
class Tell(Callback):
    "Tell of each step, and leave time for what is sent then"
    order = 950
    def after_batch(self):
        if self.training:
            print('step', self.train_iter)
            time.sleep(0.05)
def make(): return noisy_images('.', [Tell()], TorchDataLoader, workers=2)
def fit(learn, **kwargs):
    learn.fit_clr_beta(0.1, cycle_len=3, use_clr_beta=(10,13.68,0.95,0.8), **kwargs)
    print('The end:', hashlib.sha256(json.dumps(outcome(learn)).encode()).hexdigest())
'''
start = 'set_seed(0, reproducible=True); learn = make()'
fit_cell = "fit(learn, checkpoint={!r}, every_iter=1, resume=True)"

class Notebook:
    "Cells are run in a kernel that is interrupted or killed"
    def __init__(self, folder):
        self.km = pytest.importorskip('jupyter_client').KernelManager(kernel_name='python3')
        self.km.start_kernel(cwd=str(folder))
        self.connect()

    def connect(self):
        self.kc = self.km.client()
        self.kc.start_channels()
        self.kc.wait_for_ready(timeout=300)

    def run(self, cell, steps=None, end=None):
        "Run a cell; after so many steps, call `end`. What it wrote, and whether it showed a progress bar"
        sent,seen,bar = self.kc.execute(cell),'',False
        while True:
            msg = self.kc.get_iopub_msg(timeout=300)
            if msg['parent_header'].get('msg_id') != sent: continue
            kind,content = msg['msg_type'],msg['content']
            if kind == 'stream': seen += content['text']
            if kind == 'error': seen += content['ename']+content['evalue']
            bar = bar or '<progress' in str(content.get('data'))
            if end and seen.count('step ') >= steps:
                if end(): return seen,bar
                steps += 3  # then again: Python ignores an interrupt within a destructor
            if kind == 'status' and content['execution_state'] == 'idle': return seen,bar

    def interrupt(self, after):
        time.sleep(after)
        self.km.interrupt_kernel()

    def kill(self):
        self.km.signal_kernel(signal.SIGKILL)
        return True

    def restart(self):
        self.kc.stop_channels()
        self.km.restart_kernel(now=True)
        self.connect()

    def close(self):
        self.kc.stop_channels()
        self.km.shutdown_kernel(now=True)

@pytest.fixture
def notebook(tmp_path):
    pytest.importorskip('ipykernel')
    nb = Notebook(tmp_path)
    yield nb
    nb.close()

@needs_fork  # as do the loaders of kills.py
def test_a_kernel_that_is_interrupted_and_killed(notebook):
    "Two interrupts, each followed by the same cell again; and a kill, followed by all cells again"
    nb = notebook
    nb.run(setup)
    nb.run(start)
    end = nb.run('fit(learn)')[0].splitlines()[-1]
    assert end.startswith('The end: ')
    nb.run(start)
    for i in range(2):
        seen,bar = nb.run(fit_cell.format('interrupted'), 2, partial(nb.interrupt, after=0.02*i))
        assert seen.endswith('KeyboardInterrupt') and bar, seen
        assert i == 0 or 'Resuming from epoch' in seen
    assert nb.run(fit_cell.format('interrupted'))[0].splitlines()[-1] == end
    nb.run(start)
    assert 'The end' not in nb.run(fit_cell.format('killed'), 8, nb.kill)[0]  # six steps make an epoch
    nb.restart()
    nb.run(setup)
    nb.run('learn = make()')  # with other weights and random numbers
    seen = nb.run(fit_cell.format('killed'))[0]
    assert 'Resuming from epoch 1' in seen and seen.splitlines()[-1] == end
