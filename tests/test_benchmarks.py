"The benchmark of the peak runs on one small task, and its committed tables follow from its logs"
import sys
import pandas as pd, pytest
from conftest import root
from processes import run, run_script

folder = root/'benchmarks'

def smoke_test():
    sys.path.insert(0, str(folder))
    run_script(folder/'peak.py', '--smoke-test')

@pytest.mark.slow
def test_one_small_task(tmp_path):
    "It is measured and judged in a folder of its own, without the other packages"
    code,output = run(smoke_test, folder=tmp_path)
    assert code == 0, output[-3000:]
    assert 'design, 300 steps, 1 tasks' in output and 'the usual rate' in output

@pytest.fixture(scope='module')
def benchmark():
    with pytest.MonkeyPatch.context() as m:
        m.syspath_prepend(folder)
        import peak, schedules
        yield peak,schedules

def test_committed_tables_of_the_peak(benchmark):
    peak,_ = benchmark
    committed = pd.read_csv(folder/'results/peak/regret.csv').query('half == "judging" and steps == 300')
    table,*_ = peak.judge('judging', 300)
    again = table.set_index('rule')['mean']
    for row in committed.itertuples(): assert row.mean == pytest.approx(again[row.rule], rel=1e-2), row.rule

def test_committed_tables_of_the_schedules(benchmark):
    _,schedules = benchmark
    committed = pd.read_csv(folder/'results/schedules_overall.csv', index_col='what')['mean']
    again = schedules.overall(schedules.logged())['mean']
    assert again.to_dict() == pytest.approx(committed.to_dict(), abs=1e-3)
