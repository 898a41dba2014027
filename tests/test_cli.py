"The main job, as a process"
import json, os, signal, subprocess, sys, time
from contextlib import suppress
from functools import partial
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits

files = {'history.csv','schedule.png','losses.png','model.pth','summary.json'}

def start(*args, cwd, **kwargs):
    code = "from fastai_clrbeta.cli import main; main()"
    return subprocess.Popen([sys.executable, '-W', 'ignore', '-c', code, *map(str, args)], cwd=cwd, text=True,
                            **{'stdout':subprocess.PIPE, 'stderr':subprocess.PIPE, **kwargs})

def run(*args, cwd):
    p = start(*args, cwd=cwd)
    out,err = p.communicate(timeout=600)
    return p.returncode,out,err

def wait_for(f, done=lambda: True):
    deadline = time.time()+120
    while not (f.exists() and done()) and time.time() < deadline: time.sleep(0.02)

def result(d): return json.loads((d/'summary.json').read_text())['result']

def test_main_job(tmp_path):
    "No argument: ResNet-20 on the digits passes 97 %"
    code,out,err = run(cwd=tmp_path)
    assert code == 0, err
    d = tmp_path/'clrbeta_run'
    assert {o.name for o in d.iterdir()} == files
    df = pd.read_csv(d/'history.csv')
    assert list(df.columns) == ['epoch','train_loss','valid_loss','accuracy','seconds'] and list(df.epoch) == list(range(15))
    assert df.accuracy.iloc[-1] == result(d)['accuracy'] > 0.97
    lines = out.splitlines()
    assert lines[0].startswith('ResNet-20 (pool) on digits') and f"accuracy {df.accuracy.iloc[-1]:.2%}" in lines[-1]
    assert len(lines) == 3+15 and lines[2].split()[0] == '0'  # a plain row an epoch, under a header: this is no terminal
    assert lines[1].split() == ['epoch','train_loss','valid_loss','accuracy','time'] and len(set(map(len, lines[1:-1]))) == 1
    summary = json.loads((d/'summary.json').read_text())
    assert summary['args'] == dict(data='digits', depth=20, shortcut='pool', lr='0.4', find=False, cycle_len=15, wd=1e-4,
                                   clr_beta='10,13.68,0.95,0.8', bs=128, augment=False, seed=42, out='clrbeta_run', force=False,
                                   checkpoint=False, resume=False, precision='fp32', compile=False)
    assert {'fastai_clrbeta','fastai','torch','python'} <= set(summary['versions'])
    for o in d.glob('*.png'): assert min(Image.open(o).size) > 300

@pytest.fixture(scope='module')
def images(tmp_path_factory):
    "A folder of 400 training and 100 validation digits, as PNG files"
    d = tmp_path_factory.mktemp('data')/'digits'
    digits = load_digits()
    for i,(x,y) in enumerate(zip(digits.images[:500], digits.target)):
        f = d/('test' if i>=400 else 'train')/str(y)/f'{i}.png'
        f.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((x*15).astype('uint8')).resize((16,16)).convert('RGB').save(f)
    return d

def small(images, out): return f'--data {images} --depth 8 --lr 0.2 --cycle_len 6 --bs 50 --seed 3 --out {out}'.split()

def test_real_files_same_seed_same_result_and_no_overwriting(images, tmp_path):
    for out in 'a','b':
        code,_,err = run(*small(images, out), cwd=tmp_path)
        assert code == 0, err
        assert {o.name for o in (tmp_path/out).iterdir()} == files
    strip = lambda d: pd.read_csv(tmp_path/d/'history.csv').drop(columns='seconds')
    pd.testing.assert_frame_equal(strip('a'), strip('b'), check_exact=True)
    res = [result(tmp_path/o) for o in 'ab']
    assert res[0]['precision'] == 'fp32'
    assert res[0]['n_train'] == 400 and res[0]['accuracy'] == res[1]['accuracy'] > 0.5

    before = {o.name:o.read_bytes() for o in (tmp_path/'a').iterdir()}
    code,_,err = run(*small(images, 'a'), cwd=tmp_path)
    assert code and 'already holds' in err and '--force' in err
    assert {o.name:o.read_bytes() for o in (tmp_path/'a').iterdir()} == before
    code,_,err = run(*small(images, 'a'), '--force', cwd=tmp_path)
    assert code == 0, err
    pd.testing.assert_frame_equal(strip('a'), strip('b'), check_exact=True)

def test_find(images, tmp_path):
    "The range test changes nothing in the run after it; auto takes its peak"
    for args,out in ((), 'a'), (('--find',), 'b'), (('--lr','auto'), 'c'):
        code,txt,err = run(*small(images, out), '--cycle_len', 2, *args, cwd=tmp_path)
        assert code == 0, err
        if args: assert 'peak' in txt and {o.name for o in (tmp_path/out).iterdir()} == files | {'lr_find.csv','lr_find.png'}
    a,b = [pd.read_csv(tmp_path/o/'history.csv').drop(columns='seconds') for o in 'ab']
    pd.testing.assert_frame_equal(a, b, check_exact=True)
    df = pd.read_csv(tmp_path/'b/lr_find.csv')
    assert {'lr','train_loss','valid_loss','accuracy','accuracy_smooth'} < set(df) and len(df) > 20
    assert result(tmp_path/'a')['lr'] == 0.2 and f"peak: {result(tmp_path/'c')['lr']:.3g}" in txt

@pytest.mark.parametrize('args,msg', [
    ('--depth 21', '--depth=21'), ('--shortcut id', "--shortcut='id'"), ('--lr -1', '--lr=-1'), ('--lr high', '--lr high'),
    ('--clr_beta 10', '--clr_beta 10'), ('--lr 0.4,9', '--lr 0.4,9'),
    ('--clr_beta a,b', '--clr_beta a,b'),
    ('--clr_beta 10,120', '--clr_beta 10,120: pct=120'), ('--lr nan', '--lr=nan'), ('--data nowhere', 'nowhere/train'), ('--bs 5000', '--bs=5000'),
    ('--cycle_len 0', '--cycle_len=0'), ('--wd -1', '--wd=-1'), ('--augment', '--augment'), ('--nonsense 1', '--nonsense'),
    ('--precision half', "--precision='half'"), ('--precision fp16', "--precision='fp16': only CUDA")])
def test_bad_input_is_one_line(args, msg, tmp_path, capsys, monkeypatch):
    from fastai_clrbeta.cli import main
    monkeypatch.setattr(sys, 'argv', ['clrbeta', *args.split(), '--out', str(tmp_path/'out')])
    with pytest.raises(SystemExit) as e: main()
    text = str(e.value) + capsys.readouterr().err
    assert msg in text and 'Traceback' not in text
    assert not list(tmp_path.iterdir())

def test_images_that_do_not_fit_are_found_out_before_anything_is_replaced(images, tmp_path):
    from fastcore.script import CliError
    from fastai_clrbeta.cli import clrbeta
    odd = tmp_path/'odd'
    for f in list(images.glob('*/*/*'))[::5]:
        (odd/f.relative_to(images)).parent.mkdir(parents=True, exist_ok=True)
        Image.open(f).resize((18,18)).save(odd/f.relative_to(images))
    (tmp_path/'out').mkdir()
    (tmp_path/'out/summary.json').write_text('old')
    with pytest.raises(CliError, match='18×18 pixels'): clrbeta(data=odd, depth=8, bs=10, out=tmp_path/'out', force=True)
    assert (tmp_path/'out/summary.json').read_text() == 'old'

def test_precision_and_compile(images, tmp_path, monkeypatch, capsys):
    "auto says what it takes; a plain run goes on from the checkpoint of a compiled one, and not in another precision"
    import torch
    from fastcore.script import CliError
    from fastai_clrbeta import cli
    run = partial(cli.clrbeta, data=images, depth=8, cycle_len=2, bs=50, checkpoint=True, out=tmp_path/'out')
    compiled = []
    monkeypatch.setattr(torch.nn.Module, 'compile', lambda m: compiled.append(m))
    monkeypatch.setattr('torch.cpu.get_capabilities', lambda: {'avx512_bf16':True, 'cpu_name':'X'}, raising=False)
    with monkeypatch.context() as m:
        def killed(self):
            if self.epoch: raise RuntimeError('killed')
            self.start_epoch,self.trained = time.time(),False
        m.setattr(cli.EpochCSV, 'before_epoch', killed)
        with pytest.raises(RuntimeError, match='killed'): run(precision='auto', compile=True)
    assert len(compiled) == 1 and 'precision: bf16, since this CPU (X) has avx512_bf16' in capsys.readouterr().out
    with pytest.raises(CliError, match='precision auto, not fp32'): run(resume=True)
    os.remove(tmp_path/'out/summary.json')
    with pytest.raises(CliError, match='precision bf16 there, fp32 here'): run(resume=True)
    run(resume=True, precision='bf16')
    assert 'Resuming from epoch 1' in capsys.readouterr().out and len(compiled) == 1
    assert result(tmp_path/'out')['precision'] == 'bf16' and result(tmp_path/'out')['epochs'] == 2

def test_diverged_run_says_so(images, tmp_path, capsys):
    from fastai_clrbeta.cli import clrbeta
    clrbeta(data=images, depth=8, lr=1e9, clr_beta=(10,10), cycle_len=1, bs=50, out=tmp_path/'out')  # from Python, with Python's types
    assert 'diverged' in capsys.readouterr().out.splitlines()[-1]
    def no(o): raise ValueError(o)
    res = json.loads((tmp_path/'out/summary.json').read_text(), parse_constant=no)['result']
    assert res['diverged'] and res['train_loss'] is None

def test_interrupt_loses_nothing(images, tmp_path):
    p = start(*small(images, 'run'), '--cycle_len', 500, cwd=tmp_path)
    wait_for(tmp_path/'run/history.csv')
    time.sleep(0.5)
    p.send_signal(signal.SIGINT)
    out,err = p.communicate(timeout=120)
    assert p.returncode == 130, err
    assert {o.name for o in (tmp_path/'run').iterdir()} == files
    res = result(tmp_path/'run')
    assert res['interrupted'] and 0 < res['epochs'] == len(pd.read_csv(tmp_path/'run/history.csv')) < 500
    assert 'interrupted' in out.splitlines()[-1]

def test_killed_and_resumed_is_as_if_nothing_had_happened(images, tmp_path, record_property):
    import torch
    args = lambda out: (*small(images, out), '--cycle_len', 12, '--checkpoint')
    code,_,err = run(*args('whole'), cwd=tmp_path)
    assert code == 0, err
    cut,n = tmp_path/'cut',[]
    for k in range(1,3):  # killed twice, at the start of its third and of its sixth epoch or a little later
        p = start(*args('cut'), *(['--resume'] if k>1 else []), cwd=tmp_path)
        wait_for(cut/'history.csv', lambda: len((cut/'history.csv').read_text().splitlines()) > 3*k)
        p.kill()
        p.communicate()
        n.append(len((cut/'history.csv').read_text().splitlines()))
    assert n[0] < n[1] < 13 and result(cut) is None
    code,out,err = run(*args('cut'), '--resume', cwd=tmp_path)
    assert code == 0, err
    assert 'Resuming from epoch' in out and out.count('train_loss') == 1
    assert {o.name for o in cut.iterdir()} == files | {'checkpoint.ckpt','checkpoint.prev.ckpt'}
    a,b = [pd.read_csv(tmp_path/o/'history.csv').drop(columns='seconds') for o in ('whole','cut')]
    pd.testing.assert_frame_equal(a, b, check_exact=True)
    a,b = [torch.load(tmp_path/o/'model.pth')['model'] for o in ('whole','cut')]
    assert all(v.equal(b[k]) for k,v in a.items())
    record_property('times', len(n))
    # a run that is complete, or refused for other options, touches nothing
    before = {o.name:o.read_bytes() for o in cut.iterdir()}
    code,out,err = run(*args('cut'), '--resume', cwd=tmp_path)
    assert (code, err, len(out.splitlines())) == (0, '', 1) and 'Nothing is left to do' in out and '12 of 12 epochs' in out
    code,_,err = run(*args('cut'), '--lr', 0.3, '--resume', cwd=tmp_path)
    assert code and 'holds a run with lr 0.2, not 0.3' in err and 'Traceback' not in err
    code,_,err = run(*args('cut'), '--seed', 7, '--find', '--resume', cwd=tmp_path)
    assert code and 'holds a run with seed 3, not 7' in err
    code,_,err = run(*args('cut'), cwd=tmp_path)
    assert code and 'already holds' in err and 'Go on with --resume' in err
    assert {o.name:o.read_bytes() for o in cut.iterdir()} == before
    (cut/'summary.json').unlink()  # the checkpoint knows by itself
    code,_,err = run(*args('cut'), '--lr', 0.3, '--find', '--resume', cwd=tmp_path)
    assert code and 'of another run: schedule' in err and 'Traceback' not in err and not list(cut.glob('lr_find*'))
    # without a checkpoint it starts from the beginning, in a folder that is free
    (tmp_path/'other').mkdir()
    (tmp_path/'other/history.csv').write_text('mine')
    code,_,err = run(*small(images, 'other'), '--resume', cwd=tmp_path)
    assert code and 'already holds history.csv' in err

def broken_pipe():
    "The writing end of a pipe that nobody reads"
    r,w = os.pipe()
    os.close(r)
    return w

streams = {  # what becomes of stdout and stderr
    'no reader':     lambda: dict(stdout=broken_pipe(), stderr=broken_pipe()),
    'full disk':     lambda: dict(stdout=open('/dev/full', 'w'), stderr=open('/dev/full', 'w')),
    'closed':        lambda: dict(stdout=None, stderr=None, preexec_fn=lambda: [os.close(o) for o in range(3)]),
    'ASCII only':    lambda: dict(env={**os.environ, 'PYTHONIOENCODING':'ascii'})}

@pytest.mark.parametrize('kwargs', streams.values(), ids=streams)
def test_a_run_outlives_its_readers(images, tmp_path, kwargs):
    p = start(*small(images, 'Läufe'), '--cycle_len', 2, '--bs', 20, '--find', cwd=tmp_path, **kwargs())
    p.communicate(timeout=120)
    assert p.returncode == 0
    assert {o.name for o in (tmp_path/'Läufe').iterdir()} == files | {'lr_find.csv','lr_find.png'}
    assert result(tmp_path/'Läufe')['epochs'] == 2 and len(pd.read_csv(tmp_path/'Läufe/history.csv')) == 2

def test_head(images, tmp_path):
    args = ' '.join(small(images, 'clrbeta_run'))
    code = "from fastai_clrbeta.cli import main; main()"
    p = subprocess.run(['bash','-o','pipefail','-c', f'{sys.executable} -W ignore -c "{code}" {args} | head -1'],
                       cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (p.returncode, p.stderr, len(p.stdout.splitlines())) == (0, '', 1)
    assert {o.name for o in (tmp_path/'clrbeta_run').iterdir()} == files

def rows(history):
    "How many rows a history has. While a run writes it anew, it is empty for a moment"
    for _ in range(500):
        with suppress(pd.errors.EmptyDataError): return len(pd.read_csv(history))
        time.sleep(0.01)

def test_one_folder_is_for_one_run_at_a_time(images, tmp_path):
    args = (*small(images, 'a/run'), '--cycle_len', 600)
    p = start(*args, cwd=tmp_path)
    with suppress(ProcessLookupError):
        wait_for(tmp_path/'a/run/history.csv')
        for more in ('--force',), ('--resume',):
            code,out,err = run(*args, *more, cwd=tmp_path)
            assert code == 1 and 'another clrbeta is at work in a/run' in err and len(err.splitlines()) == 1
        assert rows(tmp_path/'a/run/history.csv')
        p.kill()
    p.communicate()
    code,_,err = run(*args, '--cycle_len', 1, '--force', cwd=tmp_path)  # its lock has died with it
    assert code == 0, err
    assert {o.name for o in (tmp_path/'a/run').iterdir()} == files

def test_two_started_at_once(images, tmp_path):
    args = small(images, 'run')
    ps = [start(*args, cwd=tmp_path) for _ in range(2)]
    errs = [o.communicate(timeout=120)[1] for o in ps]
    assert sorted(o.returncode for o in ps) == [0,1], errs
    assert 'another clrbeta is at work' in ''.join(errs) or 'already holds' in ''.join(errs)
    assert result(tmp_path/'run')['epochs'] == 6

def test_impatient_interrupts(images, tmp_path):
    "Ctrl-C, and again, until it has ended"
    p = start(*small(images, 'run'), '--cycle_len', 600, cwd=tmp_path)
    wait_for(tmp_path/'run/history.csv')
    deadline = time.time()+60
    while p.poll() is None and time.time() < deadline:
        p.send_signal(signal.SIGINT)
        time.sleep(0.03)
        if 'result' in (tmp_path/'run/summary.json').read_text() and (tmp_path/'run/losses.png').exists(): break
    out,err = p.communicate(timeout=60)
    assert p.returncode == 130 and 'Traceback' not in err
    assert {o.name for o in (tmp_path/'run').iterdir()} == files and result(tmp_path/'run')['interrupted']

def test_others_errors_keep_their_traceback(images, tmp_path, monkeypatch):
    "Only what this package says in words for its user becomes one line"
    from fastcore.script import CliError
    from fastai_clrbeta import cli
    def fail(*args, **kwargs): raise ValueError('of torch')
    small = dict(data=images, depth=8, cycle_len=1, bs=50)
    for where in ('lr_find_val','fit_clr_beta','plot_clr_beta'):
        with monkeypatch.context() as m:
            m.setattr(cli.Learner, where, fail)
            with pytest.raises(ValueError, match='^of torch$') as e: cli.clrbeta(find=True, out=tmp_path/where, **small)
            assert not isinstance(e.value, CliError)
    with monkeypatch.context() as m:
        m.setattr(cli.nn.CrossEntropyLoss, 'forward', fail)
        with pytest.raises(ValueError, match='of torch'): cli.clrbeta(out=tmp_path/'loss', **small)
    with pytest.raises(CliError, match="--clr_beta"): cli.clrbeta(clr_beta='0,10', out=tmp_path/'ours', **small)
    assert not (tmp_path/'ours').exists() and not (tmp_path/'plot_clr_beta').exists()

def test_nothing_is_silenced_by_the_import():
    code = """
import warnings, fastai.vision.all, fastai.callback.all
before = list(warnings.filters)
import fastai_clrbeta.cli
assert warnings.filters == before, set(warnings.filters)-set(before)"""
    subprocess.run([sys.executable, '-c', code], check=True)
    code = "import fastai_clrbeta.cli"
    assert subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, text=True).stderr == ''

def test_epoch_csv(tmp_path):
    "It keeps a fit, not what searches and predictions do, and wants no clock of the Recorder"
    from fastai_clrbeta.all import Learner, Recorder, TrainEvalCallback, ProgressCallback, accuracy, cifar_resnet, digits_dls, sgd
    from fastai_clrbeta.cli import EpochCSV
    dls = digits_dls(bs=512, size=8)
    def learner(**kwargs): return Learner(dls, cifar_resnet(8), opt_func=sgd, metrics=accuracy, path=tmp_path, **kwargs)
    f = tmp_path/'h.csv'
    learn = learner(cbs=EpochCSV(f))
    with learn.no_bar(), learn.no_logging():
        learn.fit_clr_beta(0.1, cycle_len=2)
        before = f.read_text()
        learn.lr_find(num_it=12, show_plot=False)
        learn.lr_find_val(num_it=12, show_plot=False)
        learn.get_preds()
        learn.validate()
        assert f.read_text() == before and len(pd.read_csv(f)) == 2 == len(learn.epoch_csv.rows)
    defaults = (TrainEvalCallback(), Recorder(add_time=False))
    learn = learner(default_cbs=False, cbs=[*defaults, EpochCSV(f)])
    with learn.no_logging(): learn.fit(1, 0.1)
    df = pd.read_csv(f)
    assert list(df.columns) == ['epoch','train_loss','valid_loss','accuracy','seconds'] and df.seconds[0] > 0
    learn = learner(cbs=EpochCSV(f)).remove_cbs([Recorder,ProgressCallback])
    with pytest.raises(ValueError, match='EpochCSV needs .* Recorder'): learn.fit(1, 0.1)
    assert f.read_text() == df.to_csv(index=False)
