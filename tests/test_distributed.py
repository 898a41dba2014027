"Two processes, for real"
import json, os, subprocess, sys
import numpy as np
import pytest
from conftest import root

def test_two_processes(tmp_path):
    pytest.importorskip('accelerate')
    env = {**os.environ, 'ACCELERATE_USE_CPU':'1', 'OMP_NUM_THREADS':'1', 'PYTHONWARNINGS':'ignore', 'PYTHONPATH':str(root)}
    p = subprocess.run([sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2', str(root/'tests/distributed.py')],
                       cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert p.returncode == 0, p.stderr[-3000:]
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
    assert repr(a['fit']) == repr(b['fit'])
