"Every notebook runs, and README is the index"
import sys
from functools import partial
import pytest
import processes
from conftest import root

notebooks = sorted((root/'nbs').glob('*.ipynb'))
assert notebooks
long = {o.stem for o in notebooks if not o.stem[0].isdigit()} | {'11_lr_find','13_fit'}

def run_notebook(nb):
    "Exit with an error if a cell of the notebook `nb` raises one. Figures have half of nbdev's resolution."
    import nbdev.test
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
