"The script of the experiments: killed and run again it ends the same, it knows runs by all of their settings, and throws no log away"
import importlib.util, json, os, signal, subprocess, sys, time
import numpy as np, pandas as pd, pytest
from fastai.callback.fp16 import MixedPrecision
from fastcore.all import risinstance
from dataclasses import replace
from PIL import Image
from conftest import root

script = root/'examples/superconvergence.py'

@pytest.fixture(scope='module')
def sc():
    spec = importlib.util.spec_from_file_location('superconvergence', script)
    sys.modules['superconvergence'] = mod = importlib.util.module_from_spec(spec)  # where dataclasses look it up
    spec.loader.exec_module(mod)
    return mod

def images(folder, seed=0, n=200):
    "Two classes of noise, one of them brighter"
    rng = np.random.default_rng(seed)
    for split,k in ('train',n),('test',32):
        for c,bright in ('dark',0),('light',60):
            (folder/split/c).mkdir(parents=True)
            for i in range(k): Image.fromarray((rng.random((8,8,3))*150+bright).astype(np.uint8)).save(folder/split/c/f'{i}.png')
    return folder

@pytest.fixture(scope='module')
def data(tmp_path_factory): return images(tmp_path_factory.mktemp('images')/'tiny')

def command(data, out):
    args = f'--trial --only resnet56 --device cpu --data {data} --out {out}'.split()
    return [sys.executable, '-W', 'ignore', str(script), *args]

def logs(folder): return {o.name:pd.read_csv(o).drop(columns='seconds') for o in sorted(folder.glob('*.csv'))}

@pytest.mark.skipif(sys.platform == 'win32', reason='needs SIGKILL')
def test_killed_and_run_again(data, tmp_path):
    with subprocess.Popen(command(data, tmp_path/'killed'), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as p:
        begun = lambda: list((tmp_path/'killed').glob('*.csv'))
        while p.poll() is None and not begun(): time.sleep(0.005)
        os.kill(p.pid, signal.SIGKILL)
    partial = logs(tmp_path/'killed')
    assert len(partial) == 1 and len(*partial.values()) < 3, 'it was not killed within a run'
    again = subprocess.run(command(data, tmp_path/'killed'), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr[-3000:]
    assert 'Resuming from epoch' in again.stdout and 'constant 0.01' in again.stdout
    subprocess.run(command(data, tmp_path/'peace'), check=True, capture_output=True)
    res,peace = logs(tmp_path/'killed'),logs(tmp_path/'peace')
    assert res.keys() == peace.keys() and len(res) == 2
    for k in res: pd.testing.assert_frame_equal(res[k], peace[k], check_exact=True)
    config = json.loads((tmp_path/'killed'/partial.popitem()[0]).with_suffix('.json').read_text())
    assert len(config['sittings']) == 2 and config['data'] and config['lr'] == 0.8 and config['wd'] == 1e-4
    assert not list(tmp_path.rglob('*.ckpt')) and not list(tmp_path.rglob('*.partial*'))

@pytest.fixture
def lab(sc, data, tmp_path): return sc.Lab(data, tmp_path/'out', 'cpu', depth=8, bs=16, n_train=None, epochs=1, num_it=10)

def test_other_settings_have_another_log(sc, lab, data, tmp_path):
    other = images(tmp_path/'other', seed=1)
    change = dict(compiled=True),dict(precision='bf16')
    labs = [lab, sc.Lab(other, lab.out, 'cpu', **lab.overrides), *[sc.Lab(data, lab.out, 'cpu', **o, **lab.overrides) for o in change]]
    runs = [sc.Run(), sc.RangeTest()] + [replace(sc.Run(), **o) for o in (
        dict(lr=0.1), dict(mom=(0.9,0.9)), dict(wd=0.), dict(seed=1), dict(valid=0.1), dict(pct=50.), dict(schedule='steps'), dict(augment=True))]
    files = [o.file(r) for o in labs for r in runs]
    assert len(set(files)) == len(files)
    assert len({sc.Lab(data, lab.out, o).file(runs[0]) for o in ('cuda','cuda:0','cuda:1')}) == 1  # another card goes on with it
    assert [len(o.learner(o.trim(sc.Run())).cbs.filter(risinstance(MixedPrecision))) for o in labs] == [0,0,0,1]
    with pytest.raises(ValueError, match='must be one of fp32, bf16, fp16'): sc.Lab(data, lab.out, 'cpu', 'half')

def test_a_partial_log_is_kept(sc, lab):
    run = sc.Run()
    f = lab.file(run)
    f.write_text('epoch,train_loss,valid_loss,accuracy,seconds\n')
    lab.run(run)
    assert lab.done(run) and f.with_suffix('.partial1').read_text().startswith('epoch')

def test_what_cannot_go_on_is_told_and_left(sc, lab, data):
    "A checkpoint that can't be read, and an option that can't be had: the other runs are done, and nothing is thrown away"
    run,other = sc.Run(),sc.Run(seed=1)
    f = lab.file(run)
    ckpt,prev,_ = sc.checkpoint_paths(lab.out/'checkpoints'/f.stem)
    for o in f,ckpt,prev: o.write_text('epoch,train_loss,valid_loss,accuracy,seconds\n')
    with pytest.raises(SystemExit, match=f'{f.stem}: .* is damaged'): lab.all([run, other])
    assert lab.done(other) and not lab.done(run) and all(o.read_text().startswith('epoch') for o in (f,ckpt,prev))
    half = sc.Lab(data, lab.out, 'cpu', 'fp16', **lab.overrides)
    with pytest.raises(SystemExit, match='fp16'): half.all([run])
    assert not half.file(run).with_suffix('.json').exists()

def test_it_says_how_long_it_will_take(sc, lab, capsys):
    ckpts = sc.checkpoint_paths(lab.out/'checkpoints'/lab.file(sc.Run()).stem)
    sc.announce(lab, [sc.Run(), sc.RangeTest()])
    assert '3 epochs are left, ' in capsys.readouterr().out
    lab.run(sc.Run())
    ckpts[0].touch()  # of a process that was killed after its last row
    lab.run(sc.Run())
    sc.announce(lab, [sc.Run()])
    assert 'are left' not in capsys.readouterr().out and not any(o.exists() for o in ckpts)

def test_what_is_done_is_not_repeated(sc, lab, capsys):
    runs = [sc.Run(), sc.RangeTest()]
    lab.all(runs)
    assert capsys.readouterr().out.count('seed0') >= 2
    before = {o:o.read_bytes() for o in lab.out.glob('*.*')}
    lab.all(runs)
    assert not capsys.readouterr().out and before == {o:o.read_bytes() for o in lab.out.glob('*.*')}
    assert sum(o.suffix == '.json' for o in before) == 2
    archive,run = sc.Archive(lab.out, device='cpu'),lab.trim(runs[0])
    for o in runs: pd.testing.assert_frame_equal(archive.df(lab.trim(o)), lab.df(o))
    archive.all(map(lab.trim, runs))
    with pytest.raises(FileNotFoundError, match='fp16'): sc.Archive(lab.out, precision='fp16')
    with pytest.raises(FileNotFoundError, match='_seed1_'): archive.all([run, replace(run, seed=1)])

@pytest.mark.parametrize('best', [0.05,0.2,1.6])
def test_the_grid_grows_until_the_best_is_inside(sc, best, monkeypatch, capsys):
    tried = set()
    class Fake:
        def all(self, runs):
            tried.update(o.lr for o in runs)
            assert all(o.valid != 'test' and o.seed not in sc.reporting for o in runs)
    monkeypatch.setattr(sc, 'score', lambda lab,runs: -abs(np.log(runs[0].lr/best)) + runs[0].mom[0]/100)
    arm = sc.tune(Fake(), sc.Run(), (0.1,0.2,0.4), [(0.8,0.8),(0.9,0.9)])
    assert arm.lr == best and min(tried) < best < max(tried) and arm.mom == (0.9,0.9) and arm.valid == 'test'

def test_a_comparison_says_when_it_is_inconclusive(sc):
    assert sc.paired([71.49,72.19,71.3], [71.21,72.82,72.21])[2] == 'inconclusive'
    mean,half,word = sc.paired([3.,4.,5.], [0.,0.,0.])
    assert mean == 4 and abs(half-4.302653*3**-0.5) < 1e-5 and word == 'higher'
    assert sc.paired([0.,0.,0.], [3.,4.,5.])[2] == 'lower' and sc.paired([9.], [1.])[2] == 'inconclusive'

def test_range_tests(sc, data, tmp_path):
    "One of them, in little, twice: the second time it is read from its log"
    cmd = [sys.executable, '-W', 'ignore', str(script.parent/'range_test.py'), '--trial', '--only', 'conv, from', '--device', 'cpu',
           '--data', str(data), '--out', str(tmp_path/'out')]
    first,second = [subprocess.run(cmd, capture_output=True, text=True, check=True).stdout.splitlines() for _ in range(2)]
    assert first[-2:] == second[-2:] and len(second) == 2 and 'conv, from 1e-5' in second[-1]
    f, = (tmp_path/'out').glob('*.csv')
    assert {'train_loss','valid_loss','valid_loss_batch','accuracy_batch_centred'} <= set(pd.read_csv(f)) and f.with_suffix('.json').exists()
    assert len({sc.Lab.file(sc.Lab(data, tmp_path/'x', 'cpu'), o) for tests in sc.tests_of_2018().values() for o in tests}) == 14
