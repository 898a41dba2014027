"As it is used: with fastai's progress bars and its default callbacks, in a terminal, in a notebook and in a pipe"
import json, os, subprocess, sys
import pytest

setup = '''
import io, tempfile, warnings
from pathlib import Path
from contextlib import contextmanager
warnings.filterwarnings('ignore')
from fastai_clrbeta.all import *
from fastai_clrbeta.cli import clrbeta

class Kill(Callback):
    "End the fit with an exception, as hard as one process allows: before, in and after an epoch"
    def __init__(self, event, epoch): self.event,self.epoch_ = event,epoch
    def _kill(self, event):
        if event == self.event and self.learn.epoch == self.epoch_: raise RuntimeError('killed')
    def after_batch(self):
        if self.training and self.iter == 2: self._kill('after_batch')
    def before_validate(self): self._kill('before_validate')
    def after_epoch(self): self._kill('after_epoch')

path = Path(tempfile.mkdtemp())
def learner(cbs=None, bs=256):
    set_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192,16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16,10))
    learn = Learner(digits_dls(bs=bs, size=8, seed=1), model, opt_func=sgd, metrics=accuracy, path=path, cbs=cbs)
    assert hasattr(learn, 'progress') and hasattr(learn, 'recorder')
    return learn
def weights(learn): return [p.detach().clone() for p in learn.model.parameters()]
def same(a, b): return all(torch.equal(x, y) for x,y in zip(weights(a), weights(b)))
'''

steps = dict(
    search = '''
learn = learner()
before = weights(learn)
found = learn.lr_find_val(num_it=15, show_plot=False)
assert len(found.df) == 15 and 'valid_loss' in found.df
assert all(torch.equal(a, b) for a,b in zip(before, weights(learn))) and hasattr(learn, 'progress')
''',
    sweep = '''
learn = learner()
sweep = learn.lr_find_sweep(wd=[0,1e-3], num_it=12, show_plot=False)
assert len(sweep.table) == 2
learn.fit_clr_beta(0.1, cycle_len=2)  # the bar is as it was
assert len(learn.recorder.values) == 2
''',
    guard = '''
try: learner().fit_clr_beta(1e6, cycle_len=3, use_clr_beta=(10,10), on_diverge='raise'); assert False
except FitDiverged as e: assert e.report
learn = learner()
learn.fit_clr_beta(1e6, cycle_len=3, use_clr_beta=(10,10), on_diverge='stop')
try: learner().fit_clr_beta(1e6, cycle_len=2, use_clr_beta=(10,10), on_diverge='lengthen', lengthen=(1.5,1)); assert False
except FitDiverged as e: assert 'cycle_len=2, 3' in str(e)
learn.fit_clr_beta(0.01, cycle_len=1)
''',
    resume = '''
whole = learner()
whole.fit_clr_beta(0.1, cycle_len=3)
for event,epoch,every in [('after_batch',1,None), ('after_batch',1,2), ('before_validate',1,2), ('after_epoch',0,None), ('after_epoch',2,None)]:
    name = f'{event}_{epoch}_{every}'
    try: learner(Kill(event, epoch)).fit_clr_beta(0.1, cycle_len=3, checkpoint=name, every_iter=every); assert False
    except RuntimeError: pass
    learn = learner()
    learn.fit_clr_beta(0.1, cycle_len=3, checkpoint=name, every_iter=every, resume=True)
    assert same(learn, whole), name
    assert [o[1:3] for o in learn.recorder.values] == [o[1:3] for o in whole.recorder.values], name
    learn.fit_clr_beta(0.1, cycle_len=1)  # nothing is left of it
''',
    command = '''
rng = np.random.default_rng(0)
for i in range(120):
    f = path/f"imgs/{'train' if i<80 else 'test'}/{i%2}/{i}.png"
    f.parent.mkdir(parents=True, exist_ok=True)
    PILImage.create(rng.integers(0, 256, (8,8,3), dtype=np.uint8)).save(f)
run = dict(data=str(path/'imgs'), depth=8, cycle_len=2, bs=20, lr=0.1, find=False)
clrbeta(out=path/'whole', **run)
epoch = Learner._do_epoch
def once(self):
    if self.epoch == 1: raise RuntimeError('killed')
    epoch(self)
Learner._do_epoch = once
try: clrbeta(out=path/'cut', checkpoint=True, **run); assert False
except RuntimeError: pass
finally: Learner._do_epoch = epoch
clrbeta(out=path/'cut', checkpoint=True, resume=True, **{**run, 'find':True})
a,b = (pd.read_csv(path/o/'history.csv').drop(columns='seconds') for o in ('whole','cut'))
pd.testing.assert_frame_equal(a, b, check_exact=True)
clrbeta(out=path/'cut', checkpoint=True, resume=True, **run)
''')

script = setup + '''
import traceback
steps,errors = %r,{}
for name,code in steps.items():
    try: exec(code, dict(globals()))  # of its own names
    except BaseException: errors[name] = traceback.format_exc()
Path('errors.json').write_text(json.dumps(errors))
'''.replace('json.dumps', '__import__("json").dumps') % steps

def in_a_pipe(d):
    return subprocess.run([sys.executable, 'as_used.py'], cwd=d, capture_output=True, text=True, timeout=400).stdout

def in_a_terminal(d, *args):
    pty = pytest.importorskip('pty')
    ours,theirs = pty.openpty()
    command = [sys.executable, *(args or ['as_used.py'])]
    p = subprocess.Popen(command, cwd=d, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    out = b''
    while True:
        try: new = os.read(ours, 65536)
        except OSError: break  # the terminal's other end is closed
        if not new: break
        out += new
    p.wait(timeout=60)
    os.close(ours)
    return out.decode()

def in_a_notebook(d):
    nbformat,nbclient = pytest.importorskip('nbformat'),pytest.importorskip('nbclient')
    pytest.importorskip('ipykernel')
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell((d/'as_used.py').read_text())])
    client = nbclient.NotebookClient(nb, timeout=400, kernel_name='python3', resources={'metadata':{'path':str(d)}})
    client.execute()
    return json.dumps(nb.cells[0].outputs)

places = dict(pipe=in_a_pipe, terminal=in_a_terminal, notebook=in_a_notebook)

@pytest.fixture(scope='module', params=places)
def used(request, tmp_path_factory):
    "What went wrong in a place, by step, and what was to be seen there: one process for all steps, for it takes long to start"
    d = tmp_path_factory.mktemp(request.param)
    (d/'as_used.py').write_text(script)
    seen = places[request.param](d)
    assert (d/'errors.json').exists(), seen[-3000:]
    return request.param,json.loads((d/'errors.json').read_text()),seen

@pytest.mark.parametrize('step', steps)
def test_as_used(used, step):
    place,errors,_ = used
    assert step not in errors, f'in a {place}:\n{errors[step]}'

def test_a_bar_was_to_be_seen(used):
    "Or all of this would say nothing"
    place,_,seen = used
    assert ('<progress' if place=='notebook' else '%') in seen
