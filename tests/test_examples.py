"The examples run"
import importlib, os
import pytest
from conftest import root
from processes import in_two, run, run_script

folder = root/'examples'

@pytest.fixture
def example(monkeypatch, tmp_path):
    "Import an example in an empty folder"
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(folder)
    return importlib.import_module

def test_every_example_is_tested():
    assert {file.stem for file in folder.glob('*.py')} == {'cifar10','custom_schedule','several_processes'}

def test_cifar10(example, tmp_path, capsys, short):
    example('cifar10').main(data='digits', depth=8, epochs=1)
    out = capsys.readouterr().out
    assert 'a short cycle there ends' in out and 'accuracy: ' in out and (tmp_path/'cifar10.pkl').exists()

def test_custom_schedule(example, tmp_path):
    module = example('custom_schedule')
    schedule = module.Trapezoid(pct=40, mom_max=0.95, mom_min=0.85)
    lrs = [schedule.lr_at(i, 100) for i in range(100)]
    assert lrs[9:61] == [1.]*52 and max(lrs[:9]) < 1 and lrs[60:] == sorted(lrs[60:], reverse=True)
    assert schedule.mom_at(30, 100) == pytest.approx(0.85) and min(lrs) > 0
    module.main(epochs=1)
    assert (tmp_path/'trapezoid.png').exists() and (tmp_path/'models/trapezoid.ckpt').exists()

@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_several_processes(tmp_path):
    pytest.importorskip('accelerate')
    code,output = run(in_two, run_script, folder/'several_processes.py', '--epochs', '1', folder=tmp_path)
    assert code == 0, output[-3000:]
    assert (tmp_path/'digits.pkl').exists() and (tmp_path/'models/digits.ckpt').exists()
