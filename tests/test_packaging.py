"What is built and installed"
import re, shutil, subprocess, sys, tarfile, zipfile
from configparser import ConfigParser
from email import message_from_string
from pathlib import Path
import pytest
from conftest import root

cfg = ConfigParser(delimiters=['='])
cfg.read(root/'settings.ini', encoding='utf-8')
cfg = cfg['DEFAULT']

def build(src, dest, kind):
    code = f"import setuptools.build_meta as b; b.build_{kind}({str(dest)!r})"
    subprocess.run([sys.executable, '-c', code], cwd=src, check=True, capture_output=True)
    return next(dest.iterdir())

def check_wheel(whl):
    with zipfile.ZipFile(whl) as z:
        info = {Path(o).name:z.read(o) for o in z.namelist() if '.dist-info/' in o}
        modules = {o for o in z.namelist() if '.dist-info/' not in o}
    meta = message_from_string(info['METADATA'].decode())
    import fastai_clrbeta
    assert (meta['Name'], meta['Version']) == ('fastai_clrbeta', fastai_clrbeta.__version__)
    assert meta['Summary'] and meta['Author'] == cfg['author'] and meta['License'] == cfg['license']
    assert meta['Requires-Python'] == '>='+cfg['min_python']
    assert meta['Keywords'].split(',') == cfg['keywords'].split()
    assert meta.get_all('Classifier') == cfg['classifiers'].strip().splitlines()
    reqs = meta.get_all('Requires-Dist')
    assert {o for o in reqs if 'extra' not in o} == set(cfg['requirements'].split())
    for extra,names in ('dist',['dist']),('docs',['docs']),('dev',['dev','docs']):
        of_extra = {o.split(';')[0].strip() for o in reqs if f'extra == "{extra}"' in o}
        assert of_extra == {r for o in names for r in cfg[f'{o}_requirements'].split()}
    assert meta['Description-Content-Type'] == 'text/markdown'
    assert meta.get_payload().strip() == (root/'README.md').read_text(encoding='utf-8').strip()
    points = ConfigParser(delimiters=['='])
    points.read_string(info['entry_points.txt'].decode())
    assert points['console_scripts']['clrbeta'] == 'fastai_clrbeta.cli:clrbeta'
    assert points['nbdev']['fastai_clrbeta'] == 'fastai_clrbeta._modidx:d'
    assert 'LICENSE' in info
    ours = {o.name for o in (root/'fastai_clrbeta').glob('*.py')} | {'py.typed'}
    assert modules == {f'fastai_clrbeta/{o}' for o in ours}

@pytest.fixture
def source(tmp_path):
    "A copy of the sources, as git would give it"
    names = subprocess.run(['git','ls-files'], cwd=root, capture_output=True, text=True).stdout.split('\n')
    if not any(names): pytest.skip('not a git checkout')
    for o in filter(None, names):
        (tmp_path/'src'/o).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root/o, tmp_path/'src'/o)
    (tmp_path/'dist').mkdir()
    return tmp_path/'src'

def test_wheel(source, tmp_path): check_wheel(build(source, tmp_path/'dist', 'wheel'))

def test_wheel_from_sdist(source, tmp_path):
    sdist = build(source, tmp_path/'dist', 'sdist')
    with tarfile.open(sdist) as t: t.extractall(tmp_path/'x', filter='data')
    (tmp_path/'dist2').mkdir()
    check_wheel(build(next((tmp_path/'x').iterdir()), tmp_path/'dist2', 'wheel'))

@pytest.mark.slow
def test_one_import_only_adds():
    "The one import brings the public names, and leaves every method that fastai has as it was"
    code = '''
from fastai.vision.all import *
import fastai.data.all, fastai.learner
classes = [o for o in globals().copy().values() if isinstance(o, type)]
before = {c:dict(vars(c)) for c in classes}
def added(): return {k for k in vars(Learner) if k not in before[Learner]}
callbacks = list(defaults.callbacks)
from fastai_clrbeta.all import *
for c,old in before.items():
    for k,v in old.items():
        if not k.startswith('__'): assert vars(c)[k] is v, (c, k)
ours = {'fit_clr_beta','plot_clr_beta','no_trace','lr_find_val','lr_find_sweep','plot_overfit','to_precision',
        'lr_find_result','lr_find_sweep_result'}
assert added() == ours
assert defaults.callbacks == callbacks
for o in ('CLRBeta clr_beta_lr clr_beta_mom sgd plot_clr_beta LRFind LRSweep cifar_resnet leslie_resnet56 '
          'cifar10_dls digits_dls DivergenceGuard FitDiverged').split(): assert o in globals(), o
import sys
assert 'fastai_clrbeta.legacy' not in sys.modules  # what changes a method of fastai's is an import of its own
from fastai_clrbeta.legacy import *
assert Learner.fit is not before[Learner]['fit'] and hasattr(Learner, 'lr_find2')
unpatch()
assert added() == ours and Learner.fit is before[Learner]['fit']
'''
    subprocess.run([sys.executable, '-W', 'ignore', '-c', code], check=True)

def test_the_lowest_versions_were_tried():
    "The log of `.ci/oldest` names the versions that settings.ini allows"
    log = (root/'.ci/oldest.log').read_text(encoding='utf-8')
    assert f"Python {cfg['min_python']}." in log
    for o in cfg['requirements'].split():
        name,version = o.split('>=')
        assert re.search(rf'^{name} +{re.escape(version)}(\.0)*$', log, re.M), o
