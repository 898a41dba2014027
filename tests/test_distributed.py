"Two processes, for real"
import json, os, signal, subprocess, sys, time
from pathlib import Path
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import needs_fork, root
from fastai_clrbeta.schedule import clr_beta_lr, clr_beta_mom
from helpers import save_digits
from processes import in_two, run, run_script

pytest.importorskip('accelerate')

def start(*args, cwd, restarts=0):
    "Start torchrun with two processes"
    # the store is not shared, or what is started again may look for the processes that died
    env = dict(ACCELERATE_USE_CPU='1', OMP_NUM_THREADS='1', PYTHONWARNINGS='ignore', PYTHONPATH=str(root),
               TORCH_DISABLE_SHARE_RDZV_TCP_STORE='1')
    torchrun = '-m torch.distributed.run --standalone --nproc_per_node 2 --max-restarts'.split()
    return subprocess.Popen([sys.executable, *torchrun, str(restarts), *args], cwd=cwd, env=os.environ | env,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

def environment(pid):
    text = Path(f'/proc/{pid}/environ').read_text(encoding='utf-8')
    return dict(o.partition('=')[::2] for o in text.split('\0'))

def workers(p):
    "The processes that torchrun has started, by their rank"
    children = Path(f'/proc/{p.pid}/task/{p.pid}/children').read_text(encoding='utf-8').split()
    envs = {int(o):environment(o) for o in children}
    return {int(env['RANK']):pid for pid,env in envs.items() if 'RANK' in env}

def wait_for(path):
    deadline = time.time()+240
    while not path.exists() and time.time() < deadline: time.sleep(0.01)

@needs_fork
@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/environ').exists(), reason='needs /proc')
def test_the_command_is_started_anew(tmp_path):
    "One process of two is killed, torchrun starts both again, and all is as if nothing had happened"
    (tmp_path/'clrbeta.py').write_text('from fastai_clrbeta.cli import clrbeta; clrbeta()', encoding='utf-8')
    save_digits(tmp_path/'digits')
    options = '--data digits/ --depth 8 --cycle-len 12 --lr 0.1 --bs 50 --checkpoint --resume --out'.split()
    p = start('clrbeta.py', *options, 'killed', cwd=tmp_path, restarts=1)
    wait_for(tmp_path/'killed/history.csv')
    os.kill(workers(p)[1], signal.SIGKILL)
    out,err = p.communicate(timeout=300)
    assert p.returncode == 0, err[-3000:]
    assert out.count('Resuming from epoch') == 1 and out.count('It is all in killed/.') == 1
    code,out = run(in_two, run_script, 'clrbeta.py', *options, 'whole', folder=tmp_path)
    assert code == 0 and 'Resuming from' not in out, out[-3000:]
    a,b = (torch.load(tmp_path/o/'model.pth')['model'] for o in ('killed','whole'))
    assert all(torch.equal(a[k], b[k]) for k in a)
    a,b = (pd.read_csv(tmp_path/o/'history.csv').drop(columns='seconds') for o in ('killed','whole'))
    pd.testing.assert_frame_equal(a, b, check_exact=True)
    files = [{o.name for o in (tmp_path/name).iterdir()} for name in ('killed','whole')]
    assert len(a) == 12 and files[0] == files[1]

@needs_fork
def test_two_processes(tmp_path):
    from distributed import main
    code,out = run(in_two, main, folder=tmp_path)
    assert code == 0, out[-3000:]
    assert out.count('Stopped: ') == out.count('will hold the epoch') == 1 and '%' in out  # a bar is seen
    assert sorted(o.name for o in (tmp_path/'models').iterdir()) == ['best.pth','run.ckpt','run.prev.ckpt']
    a,b = [json.loads((tmp_path/f'rank{i}.json').read_text(encoding='utf-8')) for i in range(2)]
    assert (a['world'], a['rank'], b['rank']) == (2, 0, 1)
    assert a['full']['steps'] == 100 and a['full']['stopped'] == 'finished: 100 steps'
    assert a['diverging']['steps'] < 60 and 'diverged' in a['diverging']['stopped']
    for k in 'full','diverging':
        assert repr(a[k]) == repr(b[k]) and a[k]['same']
    n = len(a['fit']['hypers'])
    assert n == 8  # 256 images in batches of 32, on two processes, twice over
    expected = [(0.1*clr_beta_lr(i, n), clr_beta_mom(i, n, 10, 0.95, 0.8)) for i in range(n)]
    np.testing.assert_allclose(a['fit']['hypers'], expected, rtol=1e-9)
    for k in 'fit','stopped': assert repr(a[k]) == repr(b[k])
    assert a['interrupted'] == b['interrupted'] == 'KeyboardInterrupt()'
    assert a['no_trace'] and b['no_trace'] and 'Divergence(step=5, epoch=1' in a['stopped']['report']
