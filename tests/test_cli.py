"The main job, as a process"
import json, signal, subprocess, sys, time
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits

files = {'history.csv','schedule.png','losses.png','model.pth','summary.json'}

def start(*args, cwd):
    code = "from fastai_clrbeta.cli import main; main()"
    return subprocess.Popen([sys.executable, '-W', 'ignore', '-c', code, *map(str, args)], cwd=cwd, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)

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
    assert len(lines) == 2+15 and lines[1].split()[0] == '0'  # a plain row an epoch: this is no terminal
    summary = json.loads((d/'summary.json').read_text())
    assert summary['args'] == dict(data='digits', depth=20, shortcut='pool', lr='0.4', find=False, cycle_len=15, wd=1e-4,
                                   clr_beta='10,13.68,0.95,0.8', bs=128, augment=False, seed=42, out='clrbeta_run', force=False,
                                   checkpoint=False, resume=False)
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
    assert res[0]['n_train'] == 400 and res[0]['accuracy'] == res[1]['accuracy'] > 0.5

    before = {o.name:o.read_bytes() for o in (tmp_path/'a').iterdir()}
    code,_,err = run(*small(images, 'a'), cwd=tmp_path)
    assert code and 'already holds' in err and '--force' in err
    assert {o.name:o.read_bytes() for o in (tmp_path/'a').iterdir()} == before
    code,_,err = run(*small(images, 'a'), '--force', cwd=tmp_path)
    assert code == 0, err
    pd.testing.assert_frame_equal(strip('a'), strip('b'), check_exact=True)

def test_find(images, tmp_path):
    "The range test changes nothing in the run after it; auto takes its valley"
    for args,out in ((), 'a'), (('--find',), 'b'), (('--lr','auto'), 'c'):
        code,txt,err = run(*small(images, out), '--cycle_len', 2, *args, cwd=tmp_path)
        assert code == 0, err
        if args: assert 'valley' in txt and {o.name for o in (tmp_path/out).iterdir()} == files | {'lr_find.csv','lr_find.png'}
    a,b = [pd.read_csv(tmp_path/o/'history.csv').drop(columns='seconds') for o in 'ab']
    pd.testing.assert_frame_equal(a, b, check_exact=True)
    df = pd.read_csv(tmp_path/'b/lr_find.csv')
    assert {'lr','train_loss','valid_loss','accuracy','accuracy_smooth'} < set(df) and len(df) > 20
    assert result(tmp_path/'a')['lr'] == 0.2 and f"valley: {result(tmp_path/'c')['lr']:.3g}" in txt

@pytest.mark.parametrize('args,msg', [
    ('--depth 21', 'depth=21'), ('--shortcut id', "shortcut='id'"), ('--lr -1', 'lrs=-1'), ('--lr high', '--lr high'),
    ('--clr_beta 10', '--clr_beta 10'), ('--lr 0.4,9', '--lr 0.4,9'),
    ('--clr_beta a,b', '--clr_beta a,b'), ('--clr_beta 10,120', 'pct=120'), ('--data nowhere', 'nowhere/train'), ('--bs 5000', 'bs=5000'),
    ('--cycle_len 0', 'cycle_len=0'), ('--wd -1', 'wds=-1'), ('--augment', '--augment'), ('--nonsense 1', '--nonsense')])
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

def test_diverged_run_says_so(images, tmp_path, capsys):
    from fastai_clrbeta.cli import clrbeta
    clrbeta(data=images, depth=8, lr=1e9, clr_beta=(10,10), cycle_len=1, bs=50, out=tmp_path/'out')  # from Python, with Python's types
    assert 'diverged' in capsys.readouterr().out.splitlines()[-1]
    def no(o): raise ValueError(o)
    res = json.loads((tmp_path/'out/summary.json').read_text(), parse_constant=no)['result']
    assert res['diverged'] and res['train_loss'] is None

def test_interrupt_loses_nothing(tmp_path):
    p = start('--depth', 8, '--cycle_len', 500, '--out', 'run', cwd=tmp_path)
    wait_for(tmp_path/'run/history.csv')
    time.sleep(1)
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
    assert 'Going on from epoch' in out
    assert {o.name for o in cut.iterdir()} == files | {'checkpoint.ckpt','checkpoint.prev.ckpt'}
    a,b = [pd.read_csv(tmp_path/o/'history.csv').drop(columns='seconds') for o in ('whole','cut')]
    pd.testing.assert_frame_equal(a, b, check_exact=True)
    a,b = [torch.load(tmp_path/o/'model.pth')['model'] for o in ('whole','cut')]
    assert all(v.equal(b[k]) for k,v in a.items())
    record_property('times', len(n))
    # with other options it is refused, and nothing is touched
    before = {o.name:o.read_bytes() for o in cut.iterdir()}
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
