"Two processes, for real"
import json, os, signal, time
from pathlib import Path
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import needs_fork
from fastai_clrbeta.schedule import clr_beta_lr, clr_beta_mom
from helpers import save_digits
from processes import in_two, run, run_script, start

pytest.importorskip('accelerate')
pytestmark = pytest.mark.slow  # real processes

def rank_script(*args):
    "Run a script, and tell which process it is."
    Path(f"rank{os.environ['RANK']}").write_text(str(os.getpid()), encoding='utf-8')
    run_script(*args)

def torchrun(*args):
    "Do as torchrun with two processes. They are forks of this one, which has imported all that they need."
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch
    # the store is not shared, or what is started again may look for the processes that died
    os.environ |= dict(ACCELERATE_USE_CPU='1', TORCH_DISABLE_SHARE_RDZV_TCP_STORE='1')
    config = LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=2, max_restarts=1, start_method='fork',
                          rdzv_backend='c10d', rdzv_endpoint='localhost:0', run_id='test')
    elastic_launch(config, rank_script)(*args)

def wait_for(path):
    deadline = time.time()+240
    while not path.exists() and time.time() < deadline: time.sleep(0.01)

@needs_fork
def test_the_command_is_started_anew(tmp_path):
    "One process of two is killed, torchrun starts both again, and all is as if nothing had happened"
    (tmp_path/'clrbeta.py').write_text('from fastai_clrbeta.cli import clrbeta; clrbeta()', encoding='utf-8')
    save_digits(tmp_path/'digits')
    options = '--data digits/ --depth 8 --cycle-len 8 --lr 0.1 --bs 50 --checkpoint --resume --out'.split()
    p = start(torchrun, ('clrbeta.py', *options, 'killed'), tmp_path, tmp_path/'told')
    wait_for(tmp_path/'killed/history.csv')
    os.kill(int((tmp_path/'rank1').read_text(encoding='utf-8')), signal.SIGKILL)
    p.join(300)
    out = (tmp_path/'told').read_text(encoding='utf-8')
    assert p.exitcode == 0, out[-3000:]
    assert out.count('Resuming from epoch') == 1 and out.count('It is all in killed/.') == 1
    code,out = run(in_two, run_script, 'clrbeta.py', *options, 'whole', folder=tmp_path)
    assert code == 0 and 'Resuming from' not in out, out[-3000:]
    a,b = (torch.load(tmp_path/o/'model.pth')['model'] for o in ('killed','whole'))
    assert all(torch.equal(a[k], b[k]) for k in a)
    a,b = (pd.read_csv(tmp_path/o/'history.csv').drop(columns='seconds') for o in ('killed','whole'))
    pd.testing.assert_frame_equal(a, b, check_exact=True)
    files = [{o.name for o in (tmp_path/name).iterdir()} for name in ('killed','whole')]
    assert len(a) == 8 and files[0] == files[1]

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
    (*_,ended),(*_,finished) = a['diverging']['trials']
    assert ended.startswith('diverged') and finished == 'finished'
    assert "'peak': 0.05" in a['diverging']['found']
    n = len(a['fit']['hypers'])
    assert n == 8  # 256 images in batches of 32, on two processes, twice over
    expected = [(0.1*clr_beta_lr(i, n, 10, 10), clr_beta_mom(i, n, 10, 0.95, 0.8)) for i in range(n)]
    np.testing.assert_allclose(a['fit']['hypers'], expected, rtol=1e-9)
    for k in 'fit','stopped': assert repr(a[k]) == repr(b[k])
    assert a['interrupted'] == b['interrupted'] == 'KeyboardInterrupt()'
    assert a['no_trace'] and b['no_trace'] and 'Divergence(step=5, epoch=1' in a['stopped']['report']
