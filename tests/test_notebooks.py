"Every notebook runs, and README is the index"
import subprocess, sys
import pytest
from conftest import root

code = '''
import sys
from nbdev.test import test_nb
ok,_ = test_nb(sys.argv[1], skip_flags=['notest','slow'], basepath=sys.argv[2])
sys.exit(not ok)'''

notebooks = sorted((root/'nbs').glob('*.ipynb'))
assert notebooks

@pytest.mark.parametrize('nb', notebooks, ids=lambda o: o.stem)
def test_notebook(nb):
    p = subprocess.run([sys.executable, '-W', 'ignore', '-c', code, str(nb), str(root)], cwd=root, capture_output=True, text=True)
    assert p.returncode == 0, p.stderr[-3000:]

def test_readme_is_the_index(monkeypatch):
    monkeypatch.syspath_prepend(root/'.ci')
    from readme import readme
    text,figs = readme()
    assert (root/'README.md').read_text(encoding='utf-8') == text
    for name,data in figs.items(): assert (root/name).read_bytes() == data
