"The built wheel, installed by pip into a venv of its own, does what README says"
import os, re, shutil, site, subprocess, sys, sysconfig
from pathlib import Path
import pytest
from conftest import recipe_of_readme, root
from test_packaging import build

pytestmark = pytest.mark.slow  # a new venv

@pytest.fixture(scope='module')
def venv(tmp_path_factory):
    """A new venv that sees all that is installed here, except this package and pip:
    to download the requirements would take gigabytes."""
    d = tmp_path_factory.mktemp('install')
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', d/'venv'], check=True)
    (d/'others').mkdir()
    not_seen = r'(__editable__.*|fastai_clrbeta\b.*|.*\.pth|__pycache__|pip\b.*)$'
    folders = [sysconfig.get_path('purelib'), sysconfig.get_path('platlib'), *site.getsitepackages()]
    for folder in dict.fromkeys(folders):
        for o in Path(folder).glob('*'):
            link = d/'others'/o.name
            if not re.match(not_seen, o.name) and not link.exists(): link.symlink_to(o)
    libs = next((d/'venv').glob('lib/python*/site-packages'))
    (libs/'others.pth').write_text(str(d/'others'), encoding='utf-8')
    return d/'venv'

def run(*cmd, cwd, ok=True):
    env = {k:v for k,v in os.environ.items() if not k.startswith(('PYTHON','PIP_'))}
    env |= {'MPLBACKEND':'agg', 'PIP_CONFIG_FILE':os.devnull}
    env |= {'OMP_NUM_THREADS':'1'}  # more threads would wait for whatever else runs here
    p = subprocess.run([*map(str, cmd)], cwd=cwd, env=env, capture_output=True, text=True)
    assert (p.returncode==0) == ok, p.stdout[-1000:] + p.stderr[-3000:]
    return p.stdout

@pytest.fixture(scope='module')
def installed(venv, tmp_path_factory):
    "What pip said. It finds all requirements, and fails if one is missing or has another version"
    run(venv/'bin/python', '-c', 'import fastai_clrbeta', cwd=venv, ok=False)
    d = tmp_path_factory.mktemp('wheel')
    no_cache = shutil.ignore_patterns('__pycache__')
    shutil.copytree(root/'fastai_clrbeta', d/'src/fastai_clrbeta', ignore=no_cache)
    for o in root.iterdir():
        if o.is_file(): shutil.copy(o, d/'src')
    (d/'dist').mkdir()
    whl = build(d/'src', d/'dist', 'wheel')
    pip = [sys.executable, '-m', 'pip', '--python', venv/'bin/python']
    return run(*pip, 'install', '--no-index', '--disable-pip-version-check', whl, cwd=venv)

def test_requirements_are_enough(installed, venv):
    assert re.search('^Successfully installed fastai.clrbeta-[0-9a-z.]+$', installed, re.M)  # that alone
    code = """
from importlib.metadata import distribution
from packaging.requirements import Requirement
reqs = [Requirement(o) for o in distribution('fastai_clrbeta').requires]
for o in reqs:
    if o.marker is None: assert distribution(o.name).version in o.specifier, o
print(*[o.name for o in reqs if o.marker is None])"""
    names = run(venv/'bin/python', '-c', code, cwd=venv).split()
    assert {'fastai','torch','torchvision'} <= set(names)
    for o in names: assert f'Requirement already satisfied: {o}' in installed

def test_recipe(installed, venv, tmp_path):
    """README's first script runs from the installed package, and the command is there. The package imports
    nothing that `fastai.vision.all` has not imported. That keeps the import fast, see
    benchmarks/import_time.py."""
    code = """
import sys, fastai.vision.all
theirs = set(sys.modules)
import fastai_clrbeta.all
sys.modules['fastai_clrbeta.lr_find'].trial_steps = 12  # in place of 100
brought = {o for o in set(sys.modules)-theirs if o.split('.')[0] != 'fastai_clrbeta'}
""" + recipe_of_readme(epochs=3) + """
losses = [o[0] for o in learn.recorder.values]
from importlib.metadata import entry_points
command, = entry_points(group='console_scripts', name='clrbeta')
assert command.load() is sys.modules['fastai_clrbeta.cli'].clrbeta
print(brought or 'nothing', fastai_clrbeta.__file__, learn.recorder.metric_names[3], *losses)"""
    res = run(venv/'bin/python', '-W', 'ignore', '-c', code, cwd=tmp_path)
    brought,file,name,*losses = res.splitlines()[-1].split()
    assert brought == 'nothing', res
    assert (venv/'bin/clrbeta').exists()
    assert Path(file).is_relative_to(venv) and name == 'accuracy'
    assert len(losses) == 3 and float(losses[-1]) < float(losses[0])  # the training losses
