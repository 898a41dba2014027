"Two processes, for real"
import json, os, signal, subprocess, sys, time
from pathlib import Path
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import root

pytest.importorskip('accelerate')

def start(*args, cwd, restarts=0):
    env = {**os.environ, 'ACCELERATE_USE_CPU':'1', 'OMP_NUM_THREADS':'1', 'PYTHONWARNINGS':'ignore', 'PYTHONPATH':str(root),
           'TORCH_DISABLE_SHARE_RDZV_TCP_STORE':'1'}  # or what is started anew may look for those that died
    run = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2', '--max-restarts', str(restarts)]
    return subprocess.Popen([*run, *map(str, args)], cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

def ended(p):
    out,err = p.communicate(timeout=300)
    return p.returncode,out,err

def workers(p):
    "The processes that torchrun has started, by their rank"
    pids = Path(f'/proc/{p.pid}/task/{p.pid}/children').read_text().split()
    envs = {int(o):dict(x.partition('=')[::2] for x in Path(f'/proc/{o}/environ').read_text().split('\0')) for o in pids}
    return {int(env['RANK']):o for o,env in envs.items() if 'RANK' in env}

@pytest.mark.skipif(not Path('/proc/self/environ').exists(), reason='needs /proc')
def test_the_command_is_started_anew(tmp_path):
    "One process of two is killed, torchrun starts both again, and all is as if nothing had happened"
    (tmp_path/'clrbeta.py').write_text('from fastai_clrbeta.cli import clrbeta; clrbeta()')
    run = 'clrbeta.py --depth 8 --cycle-len 3 --lr 0.1 --bs 128 --checkpoint --resume --out'.split()
    p = start(*run, 'killed', cwd=tmp_path, restarts=1)
    history = tmp_path/'killed/history.csv'
    deadline = time.time()+240
    while not history.exists() and time.time() < deadline: time.sleep(0.01)
    os.kill(workers(p)[1], signal.SIGKILL)
    code,out,err = ended(p)
    assert code == 0, err[-3000:]
    assert out.count('Resuming from epoch') == 1 and out.count('It is all in killed/.') == 1
    code,out,err = ended(start(*run, 'peace', cwd=tmp_path))
    assert code == 0 and 'Resuming from' not in out, err[-3000:]
    a,b = (torch.load(tmp_path/o/'model.pth')['model'] for o in ('killed','peace'))
    assert all(torch.equal(a[k], b[k]) for k in a)
    a,b = (pd.read_csv(tmp_path/o/'history.csv').drop(columns='seconds') for o in ('killed','peace'))
    pd.testing.assert_frame_equal(a, b, check_exact=True)
    assert len(a) == 3 and {o.name for o in (tmp_path/'killed').iterdir()} == {o.name for o in (tmp_path/'peace').iterdir()}

def test_two_processes(tmp_path):
    code,out,err = ended(start(root/'tests/distributed.py', cwd=tmp_path))
    assert code == 0, err[-3000:]
    assert out.count('Stopped: ') == out.count('will hold the epoch') == 1 and '%' in out  # a bar is seen
    assert sorted(o.name for o in (tmp_path/'models').iterdir()) == ['best.pth','run.ckpt','run.prev.ckpt']
    a,b = [json.loads((tmp_path/f'rank{i}.json').read_text()) for i in range(2)]
    assert (a['world'], a['rank'], b['rank']) == (2, 0, 1)
    assert a['full']['steps'] == 100 and a['full']['stopped'] == 'finished: 100 steps'
    assert a['diverging']['steps'] < 60 and 'diverged' in a['diverging']['stopped']
    for k in 'full','diverging':
        assert repr(a[k]) == repr(b[k]) and a[k]['same']
    from fastai_clrbeta.schedule import clr_beta_lr, clr_beta_mom
    n = len(a['fit']['hypers'])
    assert n == 8  # 256 images in batches of 32, on two processes, twice over
    np.testing.assert_allclose(a['fit']['hypers'], [(0.1*clr_beta_lr(i, n), clr_beta_mom(i, n, 10, 0.95, 0.8)) for i in range(n)], rtol=1e-9)
    for k in 'fit','stopped': assert repr(a[k]) == repr(b[k])
    assert a['no_trace'] and b['no_trace'] and 'Divergence(step=5, epoch=1' in a['stopped']['report']
