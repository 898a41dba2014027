"""As it is used: with fastai's progress bars and its default callbacks, in a terminal and in a notebook.
test_kills.py does so in a pipe."""
import json
import pytest
import processes
from conftest import root

pytestmark = pytest.mark.slow  # a notebook and a terminal

setup = f'''
import sys, tempfile, warnings
from pathlib import Path
sys.path.append({str(root/'tests')!r})
warnings.filterwarnings('ignore')
from fastai_clrbeta.all import *
from fastai_clrbeta import cli
from fastai_clrbeta.cli import clrbeta
from helpers import CrashAt, digits

path = Path(tempfile.mkdtemp())
def learner(cbs=None, bs=256):
    set_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192,16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16,10))
    learn = Learner(digits(bs, seed=1), model, opt_func=sgd, metrics=accuracy, path=path, cbs=cbs)
    assert hasattr(learn, 'progress') and hasattr(learn, 'recorder')
    return learn
def weights(learn): return [p.detach().clone() for p in learn.model.parameters()]
def same(a, b): return all(torch.equal(x, y) for x,y in zip(weights(a), weights(b)))

class Killed(Exception): pass
def kill(): raise Killed('as told')
'''

steps = dict(
    search = '''
learn = learner()
before = weights(learn)
sys.modules['fastai_clrbeta.lr_find'].trial_steps = 12  # in place of 100
found = learn.lr_find_val(num_it=15, show_plot=False, trials=[0.1,0.01])
assert len(found.df) == 15 and 'valid_loss' in found.df and found.trials.steps.tolist() == [12,12]
assert all(torch.equal(a, b) for a,b in zip(before, weights(learn))) and hasattr(learn, 'progress')
''',
    sweep = '''
learn = learner()
sweep = learn.lr_find_sweep(wd=[0,1e-3], num_it=12, show_plot=False, trials=False)
assert len(sweep.table) == 2
learn.fit_clr_beta(0.1, cycle_len=2)  # the bar is as it was
assert len(learn.recorder.values) == 2
''',
    guard = '''
try: learner().fit_clr_beta(1e6, cycle_len=3, use_clr_beta=(10,10), on_diverge='raise'); assert False
except FitDiverged as e: assert e.report
learn = learner()
learn.fit_clr_beta(1e6, cycle_len=3, use_clr_beta=(10,10), on_diverge='stop')
longer = dict(on_diverge='lengthen', lengthen=(1.5,1))
try: learner().fit_clr_beta(1e6, cycle_len=2, use_clr_beta=(10,10), **longer); assert False
except FitDiverged as e: assert 'cycle_len=2, 3' in str(e)
learn.fit_clr_beta(0.01, cycle_len=1)
''',
    resume = '''
whole = learner()
whole.fit_clr_beta(0.1, cycle_len=3)
n = len(whole.dls.train)
for event,step,every in [('after_batch', n+3, 3), ('before_validate', 2*n, None), ('after_epoch', 3*n, None)]:
    name = f'{event}_{step}_{every}'
    crash = CrashAt(event, step, kill, order=0)
    try: learner(crash).fit_clr_beta(0.1, cycle_len=3, checkpoint=name, every_iter=every)
    except Killed: pass
    else: assert False
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
cli._n_test_steps = 12
run = dict(data=str(path/'imgs'), depth=8, cycle_len=2, bs=20, lr=0.1, find=False)
clrbeta(out=path/'whole', **run)
crash = CrashAt('before_epoch', 1, kill)
defaults.callbacks.append(crash)
try: clrbeta(out=path/'cut', checkpoint=True, **run)
except Killed: pass
else: assert False
finally: defaults.callbacks.remove(crash)
clrbeta(out=path/'cut', checkpoint=True, resume=True, **{**run, 'find':True})
a,b = (pd.read_csv(path/o/'history.csv').drop(columns='seconds') for o in ('whole','cut'))
pd.testing.assert_frame_equal(a, b, check_exact=True)
clrbeta(out=path/'cut', checkpoint=True, resume=True, **run)
''')

run_steps = '''
import json, traceback
errors = {}
for name,code in steps.items():
    try: exec(code, dict(globals()))  # a step does not see the names of another
    except BaseException: errors[name] = traceback.format_exc()
Path('errors.json').write_text(json.dumps(errors), encoding='utf-8')
'''

def script_of(place):
    "Return the script of all steps. The command runs only in the terminal."
    here = {k:o for k,o in steps.items() if k != 'command' or place == 'terminal'}
    return f'{setup}\nsteps = {here}\n{run_steps}'

def run_script(place): exec(script_of(place), {})

def in_a_terminal(folder):
    pytest.importorskip('pty')
    return processes.run(run_script, 'terminal', folder=folder, terminal=True)[1]

plot = """
import os
os.environ['MPLBACKEND'] = 'module://matplotlib_inline.backend_inline'
from fastai_clrbeta.all import *
plot_clr_beta(0.1);
"""

def in_a_notebook(folder):
    "Also see that each figure is shown: the first one loads the backend of Jupyter"
    nbformat,nbclient = pytest.importorskip('nbformat'),pytest.importorskip('nbclient')
    pytest.importorskip('ipykernel')
    code = plot, 'plot_clr_beta(0.2);', 'plt.plot([1,2]);', script_of('notebook')
    nb = nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, code)])
    resources = {'metadata':{'path':str(folder)}}
    nbclient.NotebookClient(nb, timeout=400, kernel_name='python3', resources=resources).execute()
    shown = [sum('image/png' in o.get('data', {}) for o in cell.outputs) for cell in nb.cells[:3]]
    assert shown == [1,1,1], f'{shown} figures are shown in three cells with one each'
    return json.dumps(nb.cells[-1].outputs)

places = dict(terminal=in_a_terminal, notebook=in_a_notebook)

@pytest.mark.parametrize('place', places)
def test_as_used(place, tmp_path):
    "One process runs all steps. Without a progress bar, this would prove nothing."
    seen = places[place](tmp_path)
    assert (tmp_path/'errors.json').exists(), seen[-3000:]
    errors = json.loads((tmp_path/'errors.json').read_text(encoding='utf-8'))
    assert not errors, '\n'.join(f'{step} in a {place}:\n{error}' for step,error in errors.items())
    assert ('<progress' if place == 'notebook' else '%') in seen
