"The command: in this process or a fork if that is enough, as a user starts it for Ctrl-C and pipes"
import io, json, os, re, shutil, signal, subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
import pandas as pd
import pytest
import torch
from fastcore.script import CliError
from PIL import Image
from fastai.callback.channelslast import ChannelsLast
from fastai_clrbeta import cli
from fastai_clrbeta import data as data_module
from fastai_clrbeta.all import *
from fastai_clrbeta.cli import clrbeta, EpochCSV, plain_rows
from helpers import fit, learner, save_digits, told
from processes import run, run_script, start

files = {'history.csv','schedule.png','losses.png','model.pth','summary.json'}
search_files = {'lr_find.csv','lr_find.png'}
columns = ['epoch','train_loss','valid_loss','accuracy','seconds']
posix = pytest.mark.skipif(os.name != 'posix', reason='signals and pipes of POSIX')

def names(folder): return {o.name for o in folder.iterdir()}
def content(folder): return {o.name:o.read_bytes() for o in folder.iterdir()}
def summary(folder): return json.loads((folder/'summary.json').read_text(encoding='utf-8'))
def result(folder): return summary(folder)['result']
def read(file): return pd.read_csv(file, float_precision='round_trip')  # not the default of pandas 2
def history(folder): return read(folder/'history.csv')

def assert_same_run(a, b):
    "Histories and weights of two folders are the same, bit for bit"
    times = dict(columns='seconds')
    pd.testing.assert_frame_equal(history(a).drop(**times), history(b).drop(**times), check_exact=True)
    a,b = [torch.load(o/'model.pth')['model'] for o in (a, b)]
    assert all(v.equal(b[k]) for k,v in a.items())

# What pip installs for a console script
script_text = '''import sys
from fastai_clrbeta.cli import clrbeta
if __name__ == '__main__': sys.exit(clrbeta())
'''

@pytest.fixture(scope='module')
def script(tmp_path_factory):
    file = tmp_path_factory.mktemp('bin')/'clrbeta.py'
    file.write_text(script_text, encoding='utf-8')
    return file

@pytest.fixture
def command(script, tmp_path, monkeypatch, capsys):
    "Run the command in this process, as from a shell; its exit status, and what it printed"
    def _run(*args):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, 'argv', sys.argv)
        handler = signal.getsignal(signal.SIGINT)  # a command may leave it ignored: its process ends
        try:
            with pytest.raises(SystemExit) as e: run_script(script, *args)
        finally: signal.signal(signal.SIGINT, handler)
        out,err = capsys.readouterr()
        status = e.value.code
        if isinstance(status, str): return 1,out,err+status
        return status or 0,out,err
    return _run

@pytest.fixture(scope='module')
def images(tmp_path_factory):
    "A folder of 400 training and 100 validation images"
    return save_digits(tmp_path_factory.mktemp('data')/'digits')

@pytest.fixture
def small(images):
    "Options of a small run"
    return f'--data {images} --depth 8 --lr 0.2 --bs 50 --seed 3'.split()

@pytest.fixture
def small_run(images):
    "The same from Python"
    return partial(clrbeta, data=images, depth=8, lr='0.2', bs=50, seed=3)

defaults_of_options = dict(
    data='digits', depth=20, shortcut='pool', lr='0.4', find=False, cycle_len=15, wd=1e-4,
    clr_beta='10,13.68,0.95,0.8', bs=128, augment=False, seed=42, out='clrbeta_run', force=False,
    checkpoint=False, resume=False, precision='fp32', compile=False)

@pytest.fixture(autouse=True)
def empty_figures(monkeypatch):
    "Save figures as empty files: to draw them takes longer than a small run. The main jobs draw them."
    monkeypatch.setattr('matplotlib.figure.Figure.savefig', lambda self, file, **kwargs: Path(file).touch())

def check_main_job(folder, out, **options):
    "What README says of the command, and what a log of it looks like"
    options = defaults_of_options | options
    n = options['cycle_len']
    assert names(folder) == files
    df = history(folder)
    assert list(df.columns) == columns and list(df.epoch) == list(range(n))
    assert df.accuracy.iloc[-1] == result(folder)['accuracy']

    head,header,*rows,last = out.splitlines()
    assert head.startswith(f"ResNet-{options['depth']} (pool) on digits")
    assert f"accuracy {df.accuracy.iloc[-1]:.2%}" in last
    assert header.split() == ['epoch','train_loss','valid_loss','accuracy','time']
    assert [o.split()[0] for o in rows] == [str(i) for i in range(n)]
    assert {len(o) for o in rows} == {len(header)}

    assert summary(folder)['args'] == options
    assert {'fastai_clrbeta','fastai','torch','python'} <= set(summary(folder)['versions'])
    for o in folder.glob('*.png'): assert min(Image.open(o).size) > 300
    return df.accuracy.iloc[-1]

@pytest.mark.slow
def test_main_job(tmp_path):
    "No option: ResNet-20 on the digits passes 97 %"
    (tmp_path/'script.py').write_text(script_text)
    code,out = run(run_script, 'script.py', folder=tmp_path)
    assert code == 0, out
    assert check_main_job(tmp_path/'clrbeta_run', out) > 0.97

def test_short_main_job(command, tmp_path, monkeypatch):
    monkeypatch.undo()  # and draw figures
    status,out,err = command('--depth', 8, '--cycle-len', 1)
    assert status == 0, err
    check_main_job(tmp_path/'clrbeta_run', out, depth=8, cycle_len=1)

def test_help(command, tmp_path):
    status,out,_ = command('--help')
    assert status == 0 and '--cycle-len' in out and 'use_clr_beta' in out and not list(tmp_path.iterdir())

def test_same_seed_same_result_and_no_overwriting(small_run, command, small, tmp_path):
    "On a folder of images"
    a,b = tmp_path/'a',tmp_path/'b'
    for out in a,b: small_run(cycle_len=3, out=out)
    assert names(a) == names(b) == files
    assert_same_run(a, b)
    assert result(a)['precision'] == 'fp32' and result(a)['n_train'] == 400
    assert result(a)['accuracy'] == result(b)['accuracy'] > 0.2

    before = content(a)
    status,_,err = command(*small, '--out', 'a')
    assert status == 1 and 'already holds' in err and '--force' in err
    assert content(a) == before
    small_run(cycle_len=1, out=a, force=True)
    assert names(a) == files and len(history(a)) == 1

def test_find(small_run, small, command, tmp_path, monkeypatch, short):
    "The range test says how long it will take, and changes nothing in the run after it; auto takes its peak"
    monkeypatch.setattr(cli, '_n_test_steps', 39)
    small_run(cycle_len=1, out=tmp_path/'plain')
    small_run(cycle_len=1, out=tmp_path/'find', find=True)
    status,out,err = command(*small, '--cycle-len', 1, '--lr', 'auto', '--out', 'auto')
    assert status == 0, err
    assert names(tmp_path/'find') == names(tmp_path/'auto') == files | search_files
    assert_same_run(tmp_path/'plain', tmp_path/'find')
    df = pd.read_csv(tmp_path/'find/lr_find.csv')
    assert {'lr','train_loss','valid_loss','accuracy','accuracy_smooth'} < set(df) and len(df) > 20
    assert result(tmp_path/'plain')['lr'] == result(tmp_path/'find')['lr'] == 0.2
    before = out[:out.index('LRFind: ')]
    assert 'Range test: up to 39 steps' in before
    assert 'as long as 7.5 epochs' in before  # 39 steps of 3·50+2·50 images, in place of 3·400+100
    assert 'two short cycles of 100 steps are needed to decide, they take as long as 23 more' in before
    assert f"peak {result(tmp_path/'auto')['lr']:.2g}" in out

@pytest.mark.parametrize('args,msg', [
    ('--depth 21', '--depth=21'),
    ('--shortcut id', "--shortcut='id'"),
    ('--lr -1', '--lr=-1'),
    ('--lr high', '--lr high'),
    ('--lr 0.4,9', '--lr 0.4,9'),
    ('--lr nan', '--lr=nan'),
    ('--clr-beta 10', '--clr-beta 10'),
    ('--clr-beta a,b', '--clr-beta a,b'),
    ('--clr-beta 10,120', '--clr-beta 10,120: pct=120'),
    ('--data nowhere', 'nowhere'),
    ('--bs 5000', '--bs=5000'),
    ('--cycle-len 0', '--cycle-len=0'),
    ('--wd -1', '--wd=-1'),
    ('--augment', '--augment'),
    ('--nonsense 1', '--nonsense'),
    ('--seed 99999999999999999999', '--seed 99999999999999999999: must be'),
    ('--seed -99999999999999999999', '--seed -99999999999999999999: must be'),
    ('--precision half', "--precision='half'"),
    ('--precision fp16', "--precision='fp16': only CUDA")])
def test_bad_input_is_one_line(args, msg, command, tmp_path):
    status,out,err = command(*args.split(), '--out', 'new/out')
    assert status in (1, 2) and msg in err and 'Traceback' not in err
    if status == 1: assert len(err.splitlines()) == 1
    assert out == '' and not list(tmp_path.iterdir())

@pytest.mark.parametrize('option', ['--out', '--data'])
def test_a_folder_without_a_name(option, command, tmp_path):
    status,out,err = command(option, '')
    assert status == 1 and f'{option} is empty' in err and len(err.splitlines()) == 1
    assert out == '' and not list(tmp_path.iterdir())

def test_a_warning_about_an_option_comes_once(small_run, tmp_path):
    with told() as warnings: small_run(cycle_len=1, clr_beta='10,0.5', out=tmp_path/'out')
    assert len([o for o in warnings if 'pct=0.5 is' in o]) == 1

def test_a_folder_whose_name_is_too_long(command, tmp_path):
    status,out,err = command('--out', 'o'*300)
    assert status == 1 and out == '' and not list(tmp_path.iterdir())
    assert len(err.splitlines()) == 1 and re.match("clrbeta: can't write in o+: File name too long", err)

def test_options_are_checked_with_the_data_before_anything_is_replaced(images, tmp_path):
    odd = tmp_path/'odd'
    for f in list(images.glob('*/*/*'))[::5]:
        new = odd/f.relative_to(images)
        new.parent.mkdir(parents=True, exist_ok=True)
        Image.open(f).resize((18,18)).save(new)
    out = tmp_path/'out'
    out.mkdir()
    (out/'summary.json').write_text('old', encoding='utf-8')
    with pytest.raises(CliError, match='18×18 pixels'): clrbeta(data=odd, depth=8, bs=10, out=out, force=True)
    assert (out/'summary.json').read_text(encoding='utf-8') == 'old'

class Killed(Exception):
    "An end that leaves no time to write results"

@contextmanager
def killed_in_epoch(monkeypatch, epoch):
    "Let the run in the block end at the beginning of this epoch"
    before_epoch = EpochCSV.before_epoch
    def die(self):
        if self.epoch == epoch: raise Killed('killed')
        before_epoch(self)
    with monkeypatch.context() as m, pytest.raises(Killed):
        m.setattr(EpochCSV, 'before_epoch', die)
        yield

def test_precision_and_compile(small_run, tmp_path, monkeypatch, capsys):
    "A plain run resumes the checkpoint of a compiled one, but not in another precision"
    out = tmp_path/'out'
    run = partial(small_run, cycle_len=2, checkpoint=True, out=out)
    compiled = []
    monkeypatch.setattr(torch.nn.Module, 'compile', lambda m: compiled.append(m))
    capabilities = lambda: dict(avx512_bf16=True, cpu_name='X')
    monkeypatch.setattr('torch.cpu.get_capabilities', capabilities, raising=False)
    with killed_in_epoch(monkeypatch, 1): run(precision='auto', compile=True)
    assert len(compiled) == 1
    assert 'precision: bf16, because this CPU (X) has avx512_bf16' in capsys.readouterr().out
    with pytest.raises(CliError, match='precision auto, not fp32'): run(resume=True)
    os.remove(out/'summary.json')
    with pytest.raises(CliError, match='bf16 in the checkpoint, fp32 in this run'): run(resume=True)
    run(resume=True, precision='bf16')
    assert 'Resuming from epoch 1' in capsys.readouterr().out and len(compiled) == 1
    assert result(out)['precision'] == 'bf16' and result(out)['epochs'] == 2

def test_diverged_run_says_so(small_run, tmp_path, capsys):
    small_run(lr=1e9, clr_beta=(10,10), cycle_len=1, out=tmp_path/'out')
    assert 'diverged' in capsys.readouterr().out.splitlines()[-1]
    text = (tmp_path/'out/summary.json').read_text(encoding='utf-8')
    assert not re.search('NaN|Infinity', text)  # not valid JSON
    assert result(tmp_path/'out')['diverged'] and result(tmp_path/'out')['train_loss'] is None

def n_epochs(folder):
    "How many epochs the history has; it is empty for a moment while it is written again"
    try: return len(history(folder))
    except (FileNotFoundError, pd.errors.EmptyDataError): return 0

def wait_for_epochs(is_running, folder, n):
    deadline = time.time()+120
    while n_epochs(folder) < n and is_running() and time.time() < deadline: time.sleep(0.02)

@posix
@pytest.mark.slow
def test_one_folder_is_for_one_run_until_it_is_interrupted(script, command, small, tmp_path):
    "The lock keeps others out. Ctrl-C, pressed again and again, loses nothing"
    folder = tmp_path/'a/run'
    args = [*small, '--out', 'a/run']
    cmd = [sys.executable, '-W', 'ignore', script, *map(str, args), '--cycle-len', '600']
    with subprocess.Popen(cmd, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as p:
        is_running = lambda: p.poll() is None
        try:
            wait_for_epochs(is_running, folder, 1)
            for more in '--force','--resume':
                status,_,err = command(*args, more)
                assert status == 1 and 'another clrbeta is at work in a/run' in err
                assert len(err.splitlines()) == 1

            deadline = time.time()+60
            while is_running() and time.time() < deadline:
                p.send_signal(signal.SIGINT)
                time.sleep(0.03)
            out,err = p.communicate(timeout=60)
        finally: p.kill()
    assert p.returncode == 130 and err == ''
    assert 'interrupted' in out.splitlines()[-1]
    assert names(folder) == files
    assert result(folder)['interrupted'] and 0 < result(folder)['epochs'] == len(history(folder)) < 600

    status,_,err = command(*args, '--cycle-len', 1, '--force')
    assert status == 0, err
    assert names(folder) == files and not result(folder)['interrupted']

def test_interrupt_from_python(small_run, tmp_path, monkeypatch):
    "The results are written, then the interrupt is passed on, and Ctrl-C is what it was"
    class Interrupt(Callback):
        def after_epoch(self): signal.raise_signal(signal.SIGINT)
    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(cli, 'ChannelsLast', Interrupt)
    with pytest.raises(KeyboardInterrupt): small_run(cycle_len=2, out=tmp_path/'out')
    assert result(tmp_path/'out')['interrupted'] and 'model.pth' in names(tmp_path/'out')
    assert signal.getsignal(signal.SIGINT) == handler

@pytest.mark.parametrize('options,then', [
    ({}, {}), ({}, dict(resume=True)), (dict(checkpoint=True), dict(resume=True))])
def test_an_interrupt_in_the_first_epoch_does_not_block_the_folder(
        options, then, small_run, tmp_path, monkeypatch, capsys):
    run = partial(small_run, cycle_len=1, out=tmp_path/'out', **options)
    after_batch = lambda cb: signal.raise_signal(signal.SIGINT) if cb.training and cb.iter == 3 else None
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(ChannelsLast, 'after_batch', after_batch, raising=False)
        run()
    hint = "Continue with --resume" if options else "The same command starts again"
    assert hint in capsys.readouterr().out.splitlines()[-1]
    run(**then)
    assert result(tmp_path/'out')['epochs'] == 1 and not result(tmp_path/'out')['interrupted']
    assert '1 of 1 epoch,' in capsys.readouterr().out

def test_an_interrupt_after_the_range_test_does_not_block_the_folder(small_run, tmp_path, monkeypatch, short):
    monkeypatch.setattr(cli, '_n_test_steps', 39)
    run = partial(small_run, cycle_len=1, out=tmp_path/'out', find=True)
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(EpochCSV, '__init__', lambda *args: signal.raise_signal(signal.SIGINT))
        run()
    assert names(tmp_path/'out') == search_files | {'schedule.png', 'summary.json'}
    run()
    assert names(tmp_path/'out') == files | search_files

def test_resume_says_that_there_is_no_checkpoint(small_run, tmp_path):
    small_run(cycle_len=1, out=tmp_path/'out')
    before = content(tmp_path/'out')
    with pytest.raises(CliError, match='no checkpoint to resume from.*--force'):
        small_run(cycle_len=1, out=tmp_path/'out', resume=True)
    assert content(tmp_path/'out') == before

def test_two_at_once(small_run, tmp_path):
    def run(_):
        try: small_run(cycle_len=1, out=tmp_path/'run')
        except CliError as e: return str(e)
    with ThreadPoolExecutor(2) as pool: errors = [*filter(None, pool.map(run, range(2)))]
    assert len(errors) == 1 and re.search('another clrbeta is at work|already holds', errors[0])
    assert names(tmp_path/'run') == files

@pytest.mark.slow
def test_killed_and_resumed_is_as_if_nothing_had_happened(
        script, command, small, tmp_path, monkeypatch, capsys, record_property):
    "In the middle of an epoch, and once more between two epochs"
    args = [*small, '--cycle-len', 8, '--checkpoint']
    cut,whole = tmp_path/'cut',tmp_path/'whole'
    p = start(run_script, (script, *args, '--out', 'cut'), tmp_path, tmp_path/'output')
    wait_for_epochs(p.is_alive, cut, 2)
    p.kill()
    p.join()
    first_kill = n_epochs(cut)
    with killed_in_epoch(monkeypatch, 7): command(*args, '--resume', '--out', 'cut')
    capsys.readouterr()
    assert 0 < first_kill < 7 == n_epochs(cut) and result(cut) is None
    status,out,err = command(*args, '--out', 'cut', '--resume')
    assert status == 0, err
    assert 'Resuming from epoch' in out and out.count('train_loss') == 1
    assert names(cut) == files | {'checkpoint.ckpt','checkpoint.prev.ckpt'}
    assert command(*args, '--out', 'whole')[0] == 0
    assert_same_run(whole, cut)
    record_property('times', 2)

@pytest.fixture(scope='module')
def finished(tmp_path_factory, images):
    "A folder with a run of two epochs and its checkpoint"
    folder = tmp_path_factory.mktemp('finished')/'run'
    clrbeta(data=images, depth=8, lr='0.2', bs=50, seed=3, cycle_len=2, checkpoint=True, out=folder)
    return folder

@pytest.mark.parametrize('more,msg', [
    ('--resume --lr 0.3', 'holds a run with lr 0.2, not 0.3'),
    ('--resume --seed 7 --find', 'holds a run with seed 3, not 7'),
    ('', 'Continue with --resume')])
def test_another_run_is_refused(more, msg, finished, command, small):
    before = content(finished)
    status,_,err = command(*small, '--cycle-len', 2, '--checkpoint', '--out', finished, *more.split())
    assert status == 1 and msg in err and len(err.splitlines()) == 1
    assert content(finished) == before

def test_a_finished_run_has_nothing_left_to_do(finished, command, small):
    before = content(finished)
    status,out,err = command(*small, '--cycle-len', 2, '--checkpoint', '--out', finished, '--resume')
    assert (status, err, len(out.splitlines())) == (0, '', 1)
    assert 'Nothing is left to do' in out and '2 of 2 epochs' in out
    assert content(finished) == before

def spellings(folder, here):
    "How the path of `folder`, which is below the home folder, can be written by someone who is in `here`"
    relative = os.path.relpath(folder, here)
    below_home = os.path.relpath(folder, Path.home())
    return folder, relative, f'./{relative}', f'{relative}/../{folder.name}/', f'~/{below_home}'

def test_a_folder_of_data_is_the_same_however_it_is_written(finished, images, command, small, tmp_path,
                                                            monkeypatch):
    for variable in 'HOME','USERPROFILE': monkeypatch.setenv(variable, str(images.parent.parent))
    for data in spellings(images, tmp_path):
        _,out,err = command(*small, '--data', data, '--cycle-len', 2, '--out', finished, '--resume')
        assert err == '' and 'Nothing is left to do' in out

    monkeypatch.setattr(data_module, '_decode', None)  # the images are in the cache
    args = [*small, '--data', f'~/{images.parent.name}/digits', '--out', 'run']
    status,_,err = command(*args, '--cycle-len', 1)
    assert (status, err) == (0, '')
    assert [o.name for o in images.parent.glob('*.npz')] == ['digits.clrbeta.npz']
    status,_,err = command(*small, '--data', images.parent, '--cycle-len', 2, '--out', finished, '--resume')
    assert status == 1 and f'holds a run with data {images}, not {images.parent}' in err

def test_lost_results_are_written_again(finished, small_run, tmp_path, capsys):
    "Although the run is complete, so that nothing is trained any more"
    shutil.copytree(finished, tmp_path/'run')
    for o in 'history.csv','schedule.png','losses.png','model.pth': (tmp_path/'run'/o).unlink()
    small_run(cycle_len=2, out=tmp_path/'run', resume=True)
    assert 'The run is complete' in capsys.readouterr().out
    assert_same_run(finished, tmp_path/'run')
    assert names(finished) == names(tmp_path/'run')
    assert summary(finished)['result'] == result(tmp_path/'run')

damaged = ['{"args": null}', '[1, 2]', 'not JSON', '', '{"args": {"cycle_len": 2}, "result": {"epochs": 2}}']

@pytest.mark.parametrize('text', damaged)
def test_a_damaged_summary_is_one_line(text, finished, command, small, tmp_path):
    "It is said in a line, and the checkpoint is resumed as if the summary was missing"
    shutil.copytree(finished, tmp_path/'run')
    (tmp_path/'run/summary.json').write_text(text, encoding='utf-8')
    args = [*small, '--cycle-len', 2, '--out', 'run']
    status,_,err = command(*args)
    assert status == 1 and 'already holds' in err and len(err.splitlines()) == 1
    status,out,err = command(*args, '--resume')
    assert (status, err) == (0, '') and out.splitlines()[0].startswith('run/summary.json is damaged')
    assert result(tmp_path/'run') == result(finished)

def test_the_checkpoint_itself_knows_its_run(finished, command, small, tmp_path):
    shutil.copytree(finished, tmp_path/'run')
    (tmp_path/'run/summary.json').unlink()
    status,_,err = command(*small, '--cycle-len', 2, '--out', 'run', '--lr', 0.3, '--resume')
    assert status == 1 and len(err.splitlines()) == 1
    assert 'of another run: lrs: 0.2 in the checkpoint, 0.3 in this run' in err

@pytest.mark.parametrize('name', ['history.csv','losses.png','model.pth'])
def test_resume_without_a_checkpoint_replaces_nothing(name, small_run, tmp_path):
    folder = tmp_path/'other'
    folder.mkdir()
    (folder/name).write_text('mine', encoding='utf-8')
    with pytest.raises(CliError, match=f'already holds {name}'): small_run(out=folder, resume=True)
    assert content(folder) == {name:b'mine'}

def without_reader():
    reader,writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, 'w', encoding='utf-8')

streams = {  # what becomes of what is printed
    'no reader':  without_reader,
    'full disk':  lambda: open('/dev/full', 'w', encoding='utf-8'),
    'closed':     lambda: None,
    'ASCII only': lambda: io.TextIOWrapper(io.BytesIO(), encoding='ascii')}

@posix
@pytest.mark.parametrize('stream', streams.values(), ids=streams)
def test_a_run_outlives_its_readers(stream, small, command, tmp_path, monkeypatch):
    if stream is streams['full disk'] and not Path('/dev/full').exists(): pytest.skip('no /dev/full')
    monkeypatch.setattr(sys, 'stdout', stream())
    monkeypatch.setattr(sys, 'stderr', stream())
    status,_,_ = command(*small, '--cycle-len', 1, '--out', 'Läufe')
    assert status == 0
    assert names(tmp_path/'Läufe') == files
    assert result(tmp_path/'Läufe')['epochs'] == 1 == len(history(tmp_path/'Läufe'))

script_that_looks_at_warnings = '''import sys, warnings
import fastai.torch_imports
before = [*warnings.filters]
from fastai_clrbeta.cli import clrbeta
new = [o for o in warnings.filters if o not in before]
assert not any('torch.jit' in str(o) for o in new), new
if __name__ == '__main__': sys.exit(clrbeta())
'''

@posix
@pytest.mark.slow
def test_head(small, tmp_path):
    """`clrbeta | head -1` prints one line, and nothing on stderr; the training goes on. The import is
    silent, too, and silences nothing"""
    (tmp_path/'script.py').write_text(script_that_looks_at_warnings, encoding='utf-8')
    cmd = ' '.join(map(str, [sys.executable, 'script.py', *small, '--cycle-len', 2]))
    p = subprocess.run(['bash','-o','pipefail','-c', f'{cmd} | head -1'],
                       cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (p.returncode, p.stderr, len(p.stdout.splitlines())) == (0, '', 1)
    assert names(tmp_path/'clrbeta_run') == files

def test_others_errors_keep_their_traceback(small_run, tmp_path, monkeypatch):
    "Only what this package says in words for its user becomes one line"
    def fail(*args, **kwargs): raise ValueError('of torch')
    for place in (Learner, 'lr_find_val'),(Learner, 'plot_clr_beta'),(nn.CrossEntropyLoss, 'forward'):
        with monkeypatch.context() as m:
            m.setattr(*place, fail)
            with pytest.raises(ValueError, match='^of torch$'):
                small_run(find=True, cycle_len=1, out=tmp_path/place[1])
    assert names(tmp_path) <= {'lr_find_val', 'forward'}
    with pytest.raises(CliError, match='--clr-beta'): small_run(clr_beta='0,10', out=tmp_path/'ours')
    assert not (tmp_path/'ours').exists()

def test_epoch_csv(tmp_path):
    "It keeps a fit, not what searches and predictions do, and wants no clock of the Recorder"
    f = tmp_path/'history.csv'
    learn = learner(tmp_path, EpochCSV(f))
    fit(learn)
    before = f.read_text(encoding='utf-8')
    with learn.no_bar(), learn.no_logging():
        learn.lr_find(num_it=12, show_plot=False)
        learn.lr_find_val(num_it=12, show_plot=False, trials=[0.1])
        learn.get_preds()
        learn.validate()
    assert f.read_text(encoding='utf-8') == before and len(pd.read_csv(f)) == 3 == len(learn.epoch_csv.rows)

    callbacks = [TrainEvalCallback(), Recorder(add_time=False), EpochCSV(f)]
    learn = learner(tmp_path, callbacks, default_cbs=False)
    with learn.no_logging(): learn.fit(1, 0.1)
    df = read(f)
    assert list(df.columns) == columns and df.seconds[0] > 0

    learn = learner(tmp_path, EpochCSV(f)).remove_cbs([Recorder, ProgressCallback])
    with pytest.raises(ValueError, match='no Recorder, so leave out EpochCSV'): learn.fit(1, 0.1)
    assert f.read_text(encoding='utf-8') == df.to_csv(index=False)

def test_two_metrics_of_one_name_have_a_column_each(tmp_path):
    def constant(value):
        def metric(pred, targ): return tensor(value)
        return metric
    fit(learner(tmp_path, EpochCSV(tmp_path/'h.csv'), metrics=[constant(1.), accuracy, constant(2.)]))
    df = pd.read_csv(tmp_path/'h.csv')
    assert list(df.columns) == [*columns[:3], 'metric', 'accuracy', 'metric_2', 'seconds']
    assert df.metric.tolist() == [1]*3 and df.metric_2.tolist() == [2]*3

def test_a_missing_folder_is_found_before_training(tmp_path):
    learn = learner(tmp_path, EpochCSV(tmp_path/'missing/h.csv'))
    before = learn.model.state_dict()['0.weight'].clone()
    with pytest.raises(ValueError, match='missing.h.csv.*: the folder of this file does not exist. Make it'):
        fit(learn)
    assert learn.model.state_dict()['0.weight'].equal(before) and names(tmp_path) == set()

class Interrupt(Callback):
    "Press Ctrl-C in the middle of an epoch."
    def __init__(self, epoch): self.at = epoch
    def after_batch(self):
        if (self.epoch, self.iter) == (self.at, 2): raise KeyboardInterrupt

def test_a_lost_history_is_written_when_training_resumes(tmp_path):
    "Not first when an epoch is complete"
    f = tmp_path/'h.csv'
    def interrupted_in(epoch):
        learn = learner(tmp_path, EpochCSV(f))
        with pytest.raises(KeyboardInterrupt): fit(learn, checkpoint='run', resume=True, cbs=Interrupt(epoch))
        return pd.read_csv(f)
    before = interrupted_in(epoch=2)
    f.unlink()
    pd.testing.assert_frame_equal(interrupted_in(epoch=2), before)
    assert list(before.epoch) == [0,1]

def test_plain_rows_with_a_checkpoint(tmp_path, capsys):
    "Nobody is warned of `learn.logger`: what prints is no part of a run"
    learn = learner(tmp_path)
    logger = learn.logger
    with told() as warnings, plain_rows(learn): learn.fit_clr_beta(0.1, cycle_len=2, checkpoint='run')
    assert warnings == [] and learn.logger is logger
    assert len(capsys.readouterr().out.splitlines()) == 3

class Slow(Callback):
    "A clock by which each training step takes half a minute"
    now = 0
    def time(self): return self.now
    def before_batch(self): self.now += 30*self.training

def test_a_long_epoch_prints_a_line_a_minute(tmp_path, capsys, monkeypatch):
    clock = Slow()
    learn = learner(tmp_path, clock)
    monkeypatch.setattr(cli, 'time', clock)
    callbacks = list(learn.cbs)
    with plain_rows(learn): learn.fit_clr_beta(0.1, cycle_len=2)
    lines = capsys.readouterr().out.splitlines()
    n = len(learn.dls.train)
    told = [re.fullmatch(rf'  epoch (\d), step (\d+) of {n}: train_loss \d\.\d{{4}}', o) for o in lines]
    steps = [(int(o[1]), int(o[2])) for o in told if o]
    assert steps == [(epoch, step) for epoch in (0, 1) for step in range(2, n+1, 2)]
    assert [o.split()[0] for o,is_step in zip(lines, told) if not is_step] == ['epoch','0','1']
    assert [type(o) for o in learn.cbs.sorted('order')] == [type(o) for o in L(callbacks).sorted('order')]

def test_a_terminal_has_a_bar_within_the_epoch(small_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: True)
    small_run(cycle_len=1, out=tmp_path/'run')
    shown = capsys.readouterr().out.split('\r')
    assert any(re.search(r'^Epoch 1/1 : .*\[5/8 ', o) for o in shown)
