"""The laboratory of the experiments: a killed run is resumed and ends the same, a run is known by all of its
settings, no log is thrown away, and the tables of logs give back what was put in"""
import gzip, json, math, sys, threading, time
from dataclasses import replace
import numpy as np, pandas as pd, pytest
from fastai.callback.fp16 import MixedPrecision
from fastai.learner import Learner
from fastcore.all import risinstance
from filelock import FileLock
from PIL import Image
from fastai_clrbeta.all import cifar_resnet, digits_dls, sgd
from conftest import root
from processes import run_script, start

sys.path.append(str(root/'experiments'))
import compare, pages, range_test, superconvergence  # noqa: E402
from laboratory import Archive, Constant, Laboratory, RangeTest, Run  # noqa: E402
from log_tables import LogTables, committed, from_cell, hash_of, merge, to_cell  # noqa: E402

small = dict(depth=8, bs=16, n_train=None, epochs=1, num_it=10)

def images(folder, seed=0, n_train=100):
    "Make two classes of noise, one of them brighter."
    rng = np.random.default_rng(seed)
    for split,n in dict(train=n_train, test=32).items():
        for name,brightness in dict(dark=0, light=60).items():
            (folder/split/name).mkdir(parents=True)
            for i in range(n):
                pixels = (rng.random((8,8,3))*150 + brightness).astype(np.uint8)
                Image.fromarray(pixels).save(folder/split/name/f'{i}.png')
    return folder

@pytest.fixture(scope='module')
def data(tmp_path_factory): return images(tmp_path_factory.mktemp('images')/'few')

@pytest.fixture
def lab(data, tmp_path): return laboratory(data, tmp_path/'working')

def laboratory(data, working, tables='no tables', device='cpu', **options):
    return Laboratory(data, working, tables, device, **options, **small)

def logs(folder):
    return {file.name:pd.read_csv(file).drop(columns='seconds') for file in folder.glob('*.csv')}

def contents(folder): return {file.name:file.read_bytes() for file in folder.glob('*.*')}

# Runs

@pytest.mark.skipif(sys.platform == 'win32', reason='needs SIGKILL')
def test_a_killed_run_is_resumed(data, tmp_path, capsys):
    killed,whole = tmp_path/'killed',tmp_path/'whole'
    options = dict(data=str(data), trial=True, only='resnet56', device='cpu')
    command = ('experiments/superconvergence.py', '--trial', '--only', 'resnet56', '--device', 'cpu',
               '--data', data, '--working', killed)
    process = start(run_script, command, root, tmp_path/'output')
    while process.is_alive() and not list(killed.glob('*.csv')): time.sleep(0.005)
    process.kill()
    process.join()
    (name,partial), = logs(killed).items()
    assert len(partial) < 3, 'it was not killed within a run'

    superconvergence.main(working=killed, **options)
    out = capsys.readouterr().out
    assert 'Resuming from epoch' in out and 'constant 0.01' in out
    superconvergence.main(working=whole, **options)
    resumed,expected = logs(killed),logs(whole)
    assert resumed.keys() == expected.keys() and len(resumed) == 2
    for key in resumed: pd.testing.assert_frame_equal(resumed[key], expected[key], check_exact=True)
    config = json.loads((killed/name).with_suffix('.json').read_text(encoding='utf-8'))
    assert len(config['sittings']) == 2 and config['data'] and config['lr'] == 0.8 and config['wd'] == 1e-4
    assert not list(tmp_path.rglob('*.ckpt')) and not list(tmp_path.rglob('*.partial*'))

def test_processes_share_runs(lab):
    "What another process is running is left to it, and waited for when all others are done."
    run,other = Run(),Run(seed=1)
    lock = FileLock(lab.checkpoints/f'{lab.stem(run)}.lock', thread_local=False)
    lock.acquire()
    lab.run(run)
    assert not lab.done(run)

    def release():
        while not lab.file(other).exists(): time.sleep(0.01)
        lock.release()
    thread = threading.Thread(target=release)
    thread.start()
    lab.all([run, other])
    thread.join()
    assert lab.done(run) and lab.done(other)
    assert lab.file(run).stat().st_mtime_ns > lab.file(other).stat().st_mtime_ns

def test_other_settings_have_another_log(lab, data, tmp_path):
    other_images = images(tmp_path/'other', seed=1, n_train=20)
    labs = [lab, laboratory(other_images, lab.working)]
    for options in (dict(compiled=True), dict(precision='bf16')):
        labs.append(laboratory(data, lab.working, **options))
    changes = [dict(lr=0.1), dict(mom=(0.9,0.9)), dict(wd=0.), dict(seed=1), dict(valid=0.1), dict(pct=50.),
               dict(schedule='steps'), dict(augment=True)]
    runs = [Run(), RangeTest(), *[replace(Run(), **change) for change in changes]]
    files = [each.file(run) for each in labs for run in runs]
    assert len(set(files)) == len(files)
    precise = [bool(each.learner(each.trim(Run())).cbs.filter(risinstance(MixedPrecision))) for each in labs]
    assert precise == [False,False,False,True]
    with pytest.raises(ValueError, match='must be one of fp32, bf16, fp16'):
        laboratory(data, lab.working, precision='half')

def test_another_gpu_continues_a_run(lab, data):
    labs = [laboratory(data, lab.working, device=device) for device in ('cuda','cuda:0','cuda:1')]
    assert len({each.file(Run()) for each in labs}) == 1

def test_a_partial_log_is_kept(lab):
    file = lab.file(Run())
    file.write_text('epoch,train_loss,valid_loss,accuracy,seconds\n', encoding='utf-8')
    lab.run(Run())
    assert lab.done(Run()) and file.with_suffix('.partial1').read_text(encoding='utf-8').startswith('epoch')

def test_what_cannot_be_resumed_is_named_and_left(lab, data):
    "If a checkpoint is damaged or an option cannot work, the other runs are done and nothing is thrown away."
    run,other = Run(),Run(seed=1)
    stem = lab.stem(run)
    files = [lab.file(run), lab.checkpoints/f'{stem}.ckpt', lab.checkpoints/f'{stem}.prev.ckpt']
    for file in files: file.write_text('epoch,train_loss,valid_loss,accuracy,seconds\n', encoding='utf-8')
    with pytest.raises(SystemExit, match=f'{stem}: .* is damaged'): lab.all([run, other])
    assert lab.done(other) and not lab.done(run)
    assert all(file.read_text(encoding='utf-8').startswith('epoch') for file in files)
    half = laboratory(data, lab.working, precision='fp16')
    with pytest.raises(SystemExit, match='fp16'): half.all([run])
    assert not half.file(run).with_suffix('.json').exists()

def test_it_says_how_long_it_will_take(lab, capsys):
    superconvergence.announce(lab, [Run(), RangeTest()])
    assert '3 epochs are left, ' in capsys.readouterr().out
    lab.run(Run())
    checkpoint = lab.checkpoints/f'{lab.stem(Run())}.ckpt'
    checkpoint.touch()  # of a process that was killed after its last row
    lab.run(Run())
    superconvergence.announce(lab, [Run()])
    assert 'are left' not in capsys.readouterr().out and not checkpoint.exists()

def test_range_tests(data, tmp_path, capsys):
    "A range test at a small size, twice: the second time it is read from its log."
    options = dict(data=str(data), working=tmp_path, only='conv, from', trial=True, device='cpu')
    outs = []
    for _ in range(2):
        range_test.main(**options)
        outs.append(capsys.readouterr().out.splitlines())
    first,second = outs
    assert first[-2:] == second and 'conv, from 1e-5' in second[-1]
    file, = tmp_path.glob('*.csv')
    assert file.with_suffix('.json').exists()
    assert {'train_loss','valid_loss','valid_loss_batch','accuracy_batch_centred'} <= set(pd.read_csv(file))

# Experiments

class FinishedRuns:
    "A laboratory in which each run is done, and is best at the learning rate in the middle of its grid"
    def __init__(self): self.asked = []

    def all(self, runs): self.asked += runs
    def done(self, run): return True
    def df(self, run):
        best = dict(cycle=0.8, steps=0.1, constant=0.05)[run.schedule]
        accuracy = [1/(1+abs(run.lr-best))]*run.epochs
        return pd.DataFrame(dict(train_loss=0.5, valid_loss=1., accuracy=accuracy))

@pytest.mark.parametrize('full', [False,True])
def test_every_experiment_runs_and_shows_its_table(full, capsys):
    lab = FinishedRuns()
    for experiment in superconvergence.choose(None, full):
        superconvergence.perform(lab, [experiment], full)
        out = capsys.readouterr().out
        assert f'{experiment.__name__}: {experiment.__doc__}' in out
        assert ('accuracy, %' in out) == ('range_tests' not in experiment.__name__)
    assert {type(run) for run in lab.asked} == {Run,RangeTest}
    with pytest.raises(SystemExit, match='there is no nothing'): superconvergence.choose('nothing', full)

# Tables

def test_tables_of_logs(lab, data, tmp_path, capsys):
    "The laboratory continues from the tables, and merging the same files again changes no byte."
    runs,tables = [Run(), RangeTest()],tmp_path/'tables'
    lab.all(runs)
    before = contents(lab.working)
    lab.all(runs)
    assert before == contents(lab.working) and len(before) == 4
    assert len(merge(lab.working, tables)) == 2
    merged = contents(tables)
    assert merged.keys() == {'runs.csv','epochs.csv.gz','range_steps.csv.gz'}
    assert merge(lab.working, tables) == [] and merged == contents(tables)
    merge(lab.working, tmp_path/'again')
    assert merged == contents(tmp_path/'again')

    capsys.readouterr()
    other = laboratory(data, tmp_path/'empty', tables)
    other.all(runs)
    assert not capsys.readouterr().out and not contents(other.working)
    archive = Archive(tables, device='cpu')
    trimmed = [lab.trim(run) for run in runs]
    archive.all(trimmed)
    for run in trimmed: pd.testing.assert_frame_equal(archive.df(run), lab.df(run), check_exact=True)
    with pytest.raises(FileNotFoundError, match='fp16'): Archive(tables, precision='fp16')
    with pytest.raises(FileNotFoundError, match='_seed1_'): archive.all([replace(trimmed[0], seed=1)])

def test_more_rows_replace_fewer(tmp_path):
    config = dict(kind='Run', lr=0.1, sittings=[])
    rows = pd.DataFrame(dict(epoch=['0','1','2'], accuracy=['0.1','0.2','0.3']))
    tables = LogTables(tmp_path)
    assert [tables.add('run', config, rows[:n]) for n in (2,1,2,3)] == [True,False,False,True]
    tables.write()
    df = LogTables(tmp_path).df(hash_of(config))
    assert df.accuracy.tolist() == [0.1,0.2,0.3]

values = ['test', '', '12', '1e5', 'null', 'NaN', 0.1, 12, None, True, [0.95,0.8], {'a':[1]}]
@pytest.mark.parametrize('value', values)
def test_a_cell_gives_its_value_back(value): assert from_cell(to_cell(value)) == value

@pytest.mark.parametrize('protocol', ['protocol1','protocol2'])
def test_committed_tables(protocol, tmp_path):
    "Each run has the hash of its configuration, and tables that are read and written again are the same."
    tables = LogTables(committed.with_name(protocol))
    for key,config in tables.configs.items():
        assert hash_of(config) == key and len(tables.df(key)) <= config.get('epochs', config.get('num_it'))
    tables.folder,old = tmp_path,tables.folder
    tables.write()
    for name,content in contents(tmp_path).items():
        read = gzip.decompress if name.endswith('.gz') else bytes
        assert read(content) == read((old/name).read_bytes()), name

# Comparisons

@pytest.mark.parametrize('best', [0.05,0.2,1.6])
def test_the_grid_grows_until_the_best_is_inside(best, monkeypatch):
    tried = set()
    class Fake:
        def all(self, runs):
            tried.update(run.lr for run in runs)
            assert all(run.valid != 'test' and run.seed not in compare.reporting_seeds for run in runs)
    def score(lab, runs): return -abs(np.log(runs[0].lr/best)) + runs[0].mom[0]/100
    monkeypatch.setattr(compare, 'score', score)
    arm = compare.tune(Fake(), Run(), (0.1,0.2,0.4), [(0.8,0.8),(0.9,0.9)])
    assert arm.lr == best and min(tried) < best < max(tried)
    assert arm.mom == (0.9,0.9) and arm.valid == 'test'

def test_a_comparison_says_if_it_is_inconclusive():
    assert compare.paired([71.49,72.19,71.3], [71.21,72.82,72.21])[2] == 'inconclusive'
    mean,half,word = compare.paired([3.,4.,5.], [0.,0.,0.])
    assert mean == 4 and abs(half-4.302653*3**-0.5) < 1e-5 and word == 'higher'
    assert compare.paired([0.,0.,0.], [3.,4.,5.])[2] == 'lower'
    assert compare.paired([9.], [1.])[2] == 'inconclusive'

def test_a_verdict_is_about_the_range_that_is_claimed():
    "Confirmed: the whole interval is inside. Contradicted: it is outside. Else inconclusive"
    effect = pages.Effect([3.,4.,5.])
    assert abs(effect.high-effect.mean-4.302653*3**-0.5) < 1e-5 and effect.n == 3
    assert [effect.verdict(*o) for o in ((), (-math.inf,0), (3.5,4.5), (0,4), (1,7))] == [
        'confirmed','contradicted','inconclusive','inconclusive','confirmed']
    assert pages.Effect([9.]).verdict() == 'inconclusive'
    ratio = pages.Effect([1,2,4], ratios=True)
    assert abs(ratio.mean-2) < 1e-9 and abs(ratio.high*ratio.low-4) < 1e-9
    assert repr(pages.Effect([-3.,-3.])) == '−3 (−3 to −3)'

def test_figures_of_runs():
    class Logs:
        def df(self, run):
            losses = dict(train_loss=[1.,0.5,0.25,0.1], valid_loss=[1.5,1.,1.25,1.5])
            return pd.DataFrame(losses | dict(accuracy=[0.1,0.6,0.5,0.4]))[:4-run]
    lab,runs = Logs(),[0,1]
    assert np.allclose(pages.end(lab, runs), [40,50]) and np.allclose(pages.best(lab, runs), [60,60])
    assert np.allclose(pages.late(lab, [0]), [50]) and np.allclose(pages.lowest(lab, runs), [2,2])
    assert np.allclose(pages.gaps(lab, runs), [[0.5,0.5,1]]*2)
    assert np.allclose(pages.rise(lab, runs, 3), [0.5,0.5])

def test_a_constant_schedule_leaves_momentum_alone():
    learn = Learner(digits_dls(bs=512, size=8), cifar_resnet(8), opt_func=sgd)
    with learn.no_bar(), learn.no_logging(): learn.fit_clr_beta(0.01, use_clr_beta=Constant(10, 13.68))
    assert set(learn.recorder.hps['lr']) == {0.01} and set(learn.recorder.hps['mom']) == {0.9}

def test_range_tests_of_2018_differ():
    runs = [run for tests in superconvergence.tests_of_2018().values() for run in tests]
    assert len(runs) == len({run.name for run in runs}) == 14
