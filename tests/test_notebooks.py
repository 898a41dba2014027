"Every notebook runs. Those that train long have smaller data and shorter cycles. README is the index."
import importlib, sys
from functools import partial
import pytest
from fastcore.nbio import read_nb
import processes
from conftest import root

notebooks = sorted((root/'nbs').glob('*.ipynb'))
assert notebooks
long = {o.stem for o in notebooks if not o.stem[0].isdigit()} | {'11_lr_find','13_fit'}

# What a test runs in place of what is on the page, by notebook
small = {
    'index': {
        'bs=128, seed=42': 'bs=128, size=8, seed=42',
        'lr_find_val() ': 'lr_find_val(num_it=40) ',
        'cycle_len=15': 'cycle_len=5',
        'acc > 0.95': 'acc > 0.8'},
    '10_divergence': {
        'bs=64, size=16, seed=42': 'bs=64, size=8, seed=42',
        'learn.fit(12, 0.4': 'learn.fit(3, 0.4'},
    '11_lr_find': {
        'start_lr=1e-4, end_lr=10)': 'start_lr=1e-4, end_lr=10, num_it=40)',
        'n_runs=3, end_lr=30': 'n_runs=3, end_lr=30, num_it=40',
        "start_lr=1e-3, bn='batch'": "num_it=30, bn='batch'",
        'iloc[[0,30,60,-1]]': 'iloc[[0,10,20,-1]]'},
    '13_fit': {
        'digits_dls(size=16)': 'digits_dls(size=8)',
        'range(3)) for n in (1,2,4)': 'range(1)) for n in (1,2)'},
    'tutorial_choose_a_learning_rate': {
        'bs=64, size=16': 'bs=64, size=8',
        'learn.lr_find_val()': 'learn.lr_find_val(num_it=40)',
        'summed.lr_find_val()': 'summed.lr_find_val(num_it=40)',
        'cycle_len=4': 'cycle_len=1',
        "bn='batch', suggest_funcs": "num_it=20, bn='batch', suggest_funcs"},
    '14_legacy': {'size=16': 'size=8'},
    'tutorial_from_fastai_07': {'bs=128, size=16': 'bs=128, size=8'},
    'tutorial_recipes': {
        'lr_find_val(show': 'lr_find_val(num_it=30, show',
        # fine-tuning: less validation
        'items[n_train:]': 'items[n_train:n_train+60]',
        'cycle_len=6)\nprint': 'cycle_len=3)\nprint',
        # tables
        '(0),3000': '(0),1200',
        'range(600)': 'range(200)',
        'error < 35': 'error < 150',
        '100,60,3000': '50,30,1500',
        # text
        '[:120]': '[:40]',
        '60::120': '20::40',
        'emb_sz=64, n_hid=96': 'emb_sz=16, n_hid=16',
        'cycle_len=6)\nmodel.save': 'cycle_len=2)\nmodel.save',
        'history[-1] > 0.4 and history[-1] > history[0]': 'len(history) == 8',
        # segmentation, and large batches
        ':250]': ':120]',
        'items[:200], items[200:]': 'items[:96], items[96:]',
        'dice > 0.7': 'dice > 0.4',
        'bs=bs, size=8, seed=0)': 'bs=bs, size=8, seed=0)\n    dls.train.n = 384',
        '(small)[-1]) > 0.9': '(small)[-1]) > 0.3'},
    'tutorial_what_is_1cycle': {'learn.lr_find_val()': 'learn.lr_find_val(num_it=40)'},
    'tutorial_runs_that_survive': {
        'bs=128, size=16': 'bs=128, size=8',
        'cycle_len=8': 'cycle_len=6',
        # not in a third new process, which would import everything again
        "start('whole').communicate()": "(whole := Path(folder.name, 'whole')).mkdir()\n"
                                        "with working_directory(whole): exec(script, {})"}}

def read_small(nb):
    "Read a notebook, and put what is `small` in place of what is long."
    res = read_nb(nb)
    for old,new in small.get(nb.stem, {}).items():
        cells = [o for o in res.cells if old in o.source]
        assert cells, f'{old} is not in {nb.name}'
        for o in cells: o.source = o.source.replace(old, new)
    return res

def run_notebook(nb):
    "Exit with an error if a cell of the notebook `nb` raises one. Figures have half of nbdev's resolution."
    import nbdev.process, nbdev.test
    importlib.import_module('fastai_clrbeta.lr_find').trial_steps = 12  # in place of 100
    nbdev.process.read_nb = read_small
    nbdev.test.CaptureShell = partial(nbdev.test.CaptureShell, mpl_format='png')
    ok,_ = nbdev.test.test_nb(nb, skip_flags=['notest','slow'], basepath=root)
    sys.exit(not ok)

def notebook_param(nb): return pytest.param(nb, id=nb.stem, marks=[pytest.mark.slow]*(nb.stem in long))

@pytest.mark.parametrize('nb', map(notebook_param, notebooks))
def test_notebook(nb):
    code,output = processes.run(run_notebook, nb, folder=root)
    assert code == 0, output[-3000:]

def test_readme_is_the_index(monkeypatch):
    monkeypatch.syspath_prepend(root/'.ci')
    from readme import readme
    text,figs = readme()
    assert (root/'README.md').read_text(encoding='utf-8') == text
    for name,data in figs.items(): assert (root/name).read_bytes() == data
