"What people do with fits every day: habits of other trainers, restarts, logs, data that cannot be used"
import inspect, os, shutil
import pytest
from conftest import needs_fork
from helpers import *
from processes import fault
from fastai_clrbeta.learner import FitCallback, follows_momentum

def found(peak, why='it was told to'): return SimpleNamespace(peak=peak, why=why)

def in_silence(learn, *args, **kwargs):
    with learn.no_bar(), learn.no_logging(): learn.fit_clr_beta(*args, **kwargs)
    return learn

def untouched(learn, error, *args, **kwargs):
    "Return the text of the error that the fit raises before it changes anything"
    before = weights(learn)
    with pytest.raises(error) as e: in_silence(learn, *args, **kwargs)
    assert weights(learn) == before and learn.opt is None
    return str(e.value)

# a range test in place of a number

def test_a_range_test_stands_for_its_peak(tmp_path):
    learn = learner(tmp_path)
    result = search(learn)
    result.peak = 0.07
    in_silence(learn, result, cycle_len=2)
    assert outcome(learn) == outcome(in_silence(learner(tmp_path), 0.07, cycle_len=2))
    drawn = learn.plot_clr_beta(found(0.3), cycle_len=2)[0].lines[0].get_ydata()
    in_function = plot_clr_beta(found(0.3), n_iter=16)[0].lines[0].get_ydata()
    assert max(drawn) == max(in_function) == pytest.approx(0.3)
    assert CLRBeta(lrs=found(0.4)).lrs == 0.4

def test_a_range_test_without_a_peak_gives_its_reason(tmp_path):
    none = found(None, 'the loss never fell.')
    text = untouched(learner(tmp_path), ValueError, none, cycle_len=2)
    assert 'without a peak' in text and 'the loss never fell.' in text
    with pytest.raises(ValueError, match='the loss never fell'): plot_clr_beta(none)
    with pytest.raises(ValueError, match='the loss never fell'): CLRBeta(lrs=none)

def test_a_resumed_run_takes_its_peak_from_the_checkpoint(tmp_path, capsys):
    whole = in_silence(learner(tmp_path/'whole'), found(0.13), cycle_len=3)
    run = dict(cycle_len=3, checkpoint='run', every_iter=1, resume=True)
    with pytest.raises(KeyboardInterrupt):
        in_silence(learner(tmp_path, CrashAt('after_batch', 12)), found(0.13), **run)
    for again in found(0.2),found(None, 'this time there is none'):
        shutil.copytree(tmp_path/'models', tmp_path/'kept', dirs_exist_ok=True)
        capsys.readouterr()
        learn = in_silence(learner(tmp_path), again, **run)
        assert outcome(learn) == outcome(whole)
        lines = [o for o in capsys.readouterr().out.splitlines() if 'peak' in o]
        here = '0.2' if again.peak else 'no peak'
        assert lines == [f'Resuming with the peak 0.13 of the checkpoint; this range test found {here}']
        shutil.copytree(tmp_path/'kept', tmp_path/'models', dirs_exist_ok=True)

    text = untouched(learner(tmp_path), ValueError, 0.2, **run)
    assert 'lrs: 0.13 in the checkpoint, 0.2 in this run' in text and 'fit_clr_beta(found' in text

def test_peaks_of_several_groups_come_from_the_checkpoint(tmp_path):
    splitter = lambda m: [params(m[0]), params(m[1:])]
    make = lambda path, cbs=(): learner(path, cbs, splitter=splitter)
    lrs = slice(0.01, 0.1)
    whole = in_silence(make(tmp_path/'whole'), lrs, cycle_len=2)
    run = dict(cycle_len=2, checkpoint='run', every_iter=1, resume=True)
    with pytest.raises(KeyboardInterrupt): in_silence(make(tmp_path, CrashAt('after_batch', 9)), lrs, **run)
    assert outcome(in_silence(make(tmp_path), found(0.5), **run)) == outcome(whole)

def test_ctrl_c_says_which_file_has_the_run(tmp_path, capsys):
    (tmp_path/'models/a').mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt):
        in_silence(learner(tmp_path, CrashAt('after_batch', 3)), 0.1, cycle_len=2, checkpoint='a/run')
    assert 'models/a/run.ckpt, and can be resumed' in capsys.readouterr().out.replace(os.sep, '/')
    with pytest.raises(KeyboardInterrupt): in_silence(learner(tmp_path, CrashAt('after_batch', 3)), 0.1)
    assert 'Interrupted' not in capsys.readouterr().out

def test_a_fit_that_explodes_says_so(tmp_path):
    with told() as warned: in_silence(learner(tmp_path), 1e6, cycle_len=2)
    assert any('at the end of the fit' in o for o in warned)

def test_a_loss_of_zero_is_no_explosion(tmp_path):
    with told() as warned: in_silence(learner(tmp_path, loss_func=lambda out, target: (out*0).sum()), 0.1)
    assert not warned

def test_nan_before_the_first_step_has_nothing_to_do_with_the_learning_rate(tmp_path):
    nan = DataLoader([(row*math.nan, target) for row,target in zip(x, y)], bs=16)
    for how in 'raise','lengthen':
        with pytest.raises(FitDiverged, match='No learning rate helps'):
            in_silence(learner(tmp_path, train=lambda: nan), 0.1, on_diverge=how)

def test_a_metric_is_a_function(tmp_path):
    learn = learner(tmp_path, metrics='accuracy')
    assert "'accuracy' is no metric" in untouched(learn, ValueError, 0.1)
    with pytest.raises(ValueError, match="'accuracy' is no metric"): search(learn)

def test_suggestions_are_not_the_rates_of_groups(tmp_path):
    found = search(learner(tmp_path), suggest_funcs=(minimum, steep)).suggestions
    two_groups = learner(tmp_path, splitter=lambda m: [params(m[0]), params(m[1:])])
    assert len(found) == 2 and 'suggestions, not values' in untouched(two_groups, ValueError, found)

def test_a_table_is_compared_with_that_of_the_checkpoint(tmp_path):
    from fastai.tabular.all import TabularDataLoaders, tabular_learner
    df = pd.DataFrame(dict(x=np.linspace(0, 1, 64), y=np.linspace(1, 3, 64)))
    def make(df, seed, cbs=()):
        splits = RandomSplitter(seed=seed)(df)
        dls = TabularDataLoaders.from_df(df, cont_names=['x'], y_names='y', bs=16, splits=splits)
        return tabular_learner(dls, layers=[4], path=tmp_path, cbs=cbs)
    run = dict(lrs=0.01, cycle_len=3, checkpoint='run')
    with pytest.raises(KeyboardInterrupt): in_silence(make(df, 1, CrashAt('after_epoch', 0)), **run)
    for other in make(df, 2),make(df+1, 1):
        assert 'training contents differ' in untouched(other, ValueError, **run, resume=True)
    in_silence(make(df, 1), **run, resume=True)

def test_a_fit_that_ends_with_nan_says_so(tmp_path):
    class NaNLoss(Callback):
        def after_loss(self): self.learn.loss_grad = self.learn.loss = self.loss_grad*math.nan
    with told() as warned: learn = in_silence(learner(tmp_path, NaNLoss()), 0.1)
    assert any('is nan at the end of the fit' in o for o in warned)
    assert not params(learn.model)[0].isfinite().all()
    with told() as warned:
        in_silence(learner(tmp_path, NaNLoss()), 0.1, on_diverge='stop')
        in_silence(learner(tmp_path), 0.1)
    assert not warned

@needs_fork
@pytest.mark.slow
def test_the_script_of_the_readme_survives_a_kill(tmp_path):
    "Started again with the same seed and with another one, it ends with the weights of the script in peace"
    res = fault('readme', tmp_path)
    assert res['codes'] == dict(peace=0, killed=-9, same_seed=0, other_seed=0), res['told']
    assert all('Resuming from epoch 3' in o for o in res['told'].values())
    assert 'with the peak' not in res['told']['same_seed']
    assert res['same'] == dict(same_seed=True, other_seed=True)

# cycles and epochs

def warnings_of(learn, *args, **kwargs):
    with told() as texts: in_silence(learn, *args, **kwargs)
    return texts

def test_cycles_that_may_be_meant_as_epochs(tmp_path):
    texts = warnings_of(learner(tmp_path), 0.05, 3)
    assert len(texts) == 1 and '3 cycles of 1 epoch' in texts[0] and 'cycle_len=3' in texts[0]
    with told() as texts: learner(tmp_path).plot_clr_beta(0.05, 3)
    assert len(texts) == 1
    assert warnings_of(learner(tmp_path), 0.05, 3, cycle_len=1) == []
    assert warnings_of(learner(tmp_path), 0.05) == []

def test_the_line_of_2018_is_not_warned_of():
    with told() as texts:
        plot_clr_beta(0.8, 1, cycle_len=95, wds=1e-4, use_clr_beta=(10, 13.68, 0.95, 0.8), n_iter=98)
    assert texts == []

def test_calls_of_0_7_meant_their_cycles(tmp_path):
    was_patched = hasattr(Learner, 'lr_find2')
    from fastai_clrbeta import legacy
    try:
        legacy.repatch()
        learn = learner(tmp_path)
        with told() as texts, learn.no_bar(), learn.no_logging(): learn.fit(0.05, 2, wds=1e-4)
        assert texts == [] and len(learn.recorder.values) == 2
        with pytest.raises(TypeError, match='lrs, the first argument.*n_cycle|n_cycle.*lrs, the first'):
            learn.fit(n_epoch=1, lr=0.1, wds=0.1)
    finally:
        if not was_patched: legacy.unpatch()

# names

@pytest.mark.parametrize('name', ['wd', 'wds'])
def test_weight_decay_has_two_names(name, tmp_path):
    learn = in_silence(learner(tmp_path), 0.05, **{name:1e-3})
    assert learn.opt.hypers[-1]['wd'] == 1e-3
    assert 'wd=0.001' in learn.plot_clr_beta(0.05, **{name:1e-3})[0].get_title()
    with pytest.raises(ValueError, match='wd=0.001, wds=0.001'): plot_clr_beta(0.05, wd=1e-3, wds=1e-3)

@pytest.mark.parametrize('name,right', [
    ('lr', 'lrs'), ('lr_max', 'lrs'), ('n_epoch', 'cycle_len'), ('epochs', 'cycle_len'),
    ('div', r'use_clr_beta=\(div'), ('pct', 'use_clr_beta'), ('pct_start', 'use_clr_beta'),
    ('moms', 'use_clr_beta'), ('start_lr', 'peak/div'),
    ('div_final', 'leave it out')])
def test_names_of_fit_one_cycle_are_explained(name, right, tmp_path):
    learn = learner(tmp_path)
    for f in learn.fit_clr_beta,learn.plot_clr_beta,plot_clr_beta:
        with pytest.raises(TypeError, match=f'{name}: .*{right}'): f(0.1, **{name:1})
    with pytest.raises(TypeError, match='unexpected keyword argument .nonsense'):
        learn.fit_clr_beta(0.1, nonsense=1)

def test_explained_names_leave_help_as_it_was():
    for f in Learner.fit_clr_beta,Learner.plot_clr_beta,plot_clr_beta:
        names = list(inspect.signature(f).parameters)
        assert 'kwargs' not in names and {'lrs','wd','wds','cycle_len'} <= {*names} and f.__doc__

# other schedulers, and momentum

class Constant(ParamScheduler):
    def __init__(self, name): super().__init__({name:SchedNo(0.01, 0.01)})

@pytest.mark.parametrize('where', ['fit', 'learner'])
@pytest.mark.parametrize('cb,shape,is_named', [
    (Constant('lr'), 4, True), (Constant('mom'), 4, True), (Constant('mom'), 2, False),
    (Constant('wd'), 4, False), (ReduceLROnPlateau(patience=1), 2, True), (CLRBeta(5, 20), 4, True),
    (SaveModelCallback(), 4, False)])
def test_other_schedulers_are_named(cb, shape, is_named, where, tmp_path):
    in_fit,in_learner = (cb, ()) if where == 'fit' else ((), cb)
    texts = warnings_of(learner(tmp_path, copy(in_learner)), 0.05, cbs=copy(in_fit),
                        use_clr_beta=(10, 10, 0.95, 0.85)[:shape])
    assert [type(cb).__name__ in o and 'no effect' in o for o in texts] == [True]*is_named

class Plain(torch.optim.Optimizer):
    "A user's SGD, which has a momentum and uses none, unless it is asked to"
    def __init__(self, params, lr=0.1, momentum=0., uses=False):
        self.uses = uses
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=0.))
    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group['params']:
                if p.grad is None: continue
                grad = p.grad
                if self.uses:
                    grad = grad + group['momentum']*self.state[p].get('last', 0.)
                    self.state[p]['last'] = grad.clone()
                p -= group['lr']*grad

def plain(**kwargs): return partial(OptimWrapper, opt=Plain, **kwargs)

@pytest.mark.parametrize('opt_func,says', [
    (plain(), "don't depend on its momentum"), (plain(momentum=0.9), "don't depend on its momentum"),
    (plain(uses=True), 'made with momentum 0'), (plain(uses=True, momentum=0.9), None),
    (partial(OptimWrapper, opt=torch.optim.SGD), 'made with momentum 0'), (sgd, None), (Adam, None),
    (ranger, None), (partial(OptimWrapper, opt=torch.optim.AdamW), None), (partial(SGD, mom=0.9), None)])
def test_momentum_that_is_not_used_is_warned_of(opt_func, says, tmp_path):
    texts = warnings_of(learner(tmp_path, opt_func=opt_func), 0.01)
    assert [says in o for o in texts if 'momentum' in o] == [True]*(says is not None), texts
    left_alone = warnings_of(learner(tmp_path, opt_func=opt_func), 0.01, use_clr_beta=(10,10))
    assert not [o for o in left_alone if 'momentum' in o]

def test_trying_the_momentum_draws_no_random_numbers():
    state = torch.get_rng_state(),random.getstate()
    assert follows_momentum(sgd) and follows_momentum(lambda params, lr: 1/0)
    assert torch.get_rng_state().equal(state[0]) and random.getstate() == state[1]

class Adam1(torch.optim.Adam):
    "Its groups say beta1 and beta2, and not betas"
    def __init__(self, params, lr=1e-3, **kwargs):
        super().__init__(params, lr=lr, **kwargs)
        for g in self.param_groups: g['beta1'],g['beta2'] = g.pop('betas')
    def step(self, closure=None):
        for g in self.param_groups: g['betas'] = g['beta1'],g['beta2']
        super().step(closure)
        for g in self.param_groups: del g['betas']

def test_momentum_by_another_name(tmp_path):
    "The line that the error shows works"
    text = untouched(learner(tmp_path, opt_func=partial(OptimWrapper, opt=Adam1)), ValueError, 1e-3)
    assert 'use_clr_beta=(div, pct)' in text
    code,imported = re.search('opt_func=(.+), after `(.+?)`', text).groups()
    names = dict(globals())
    exec(imported, names)
    learn = in_silence(learner(tmp_path, opt_func=eval(code, names)), 1e-3, use_clr_beta=(10, 10, 0.9, 0.8))
    assert min(learn.recorder.hps['mom']) == pytest.approx(0.8)

def test_the_hint_of_a_splitter_works(tmp_path):
    text = untouched(learner(tmp_path), ValueError, [0.01, 0.1])
    splitter = re.search(r'splitter=(lambda model: \[.*\])', text)[1]
    learn = in_silence(learner(tmp_path, splitter=eval(splitter)), [0.01, 0.1])
    assert len(learn.opt.hypers) == 2
    slices = in_silence(learner(tmp_path, splitter=eval(splitter)), slice(0.1))
    lrs = [h['lr'] for h in slices.opt.hypers]
    assert lrs[0] == pytest.approx(lrs[1]/10)

# the optimiser and loggers

@pytest.mark.parametrize('wd', [None, 1e-2])
def test_sgd_equals_the_default_of_torch(wd, tmp_path):
    default = partial(OptimWrapper, opt=torch.optim.SGD, momentum=0.9)
    a,b = (in_silence(learner(tmp_path, opt_func=o), 0.1, cycle_len=2, wd=wd) for o in (sgd, default))
    assert outcome(a) == outcome(b)

def test_tensorboard_takes_sgd(tmp_path):
    pytest.importorskip('tensorboard')
    from fastai.callback.tensorboard import TensorBoardCallback
    board = TensorBoardCallback(log_dir=tmp_path/'board', trace_model=False, log_preds=False)
    in_silence(learner(tmp_path), 0.05, cbs=board)
    assert list((tmp_path/'board').iterdir())

# the file of a CSVLogger

def csv_lines(path): return (path/'history.csv').read_text(encoding='utf-8').splitlines()
def rows(path): return [o.split(',')[0] for o in csv_lines(path)]
def no_times(path): return [o.rpartition(',')[0] for o in csv_lines(path)]

@pytest.mark.parametrize('event,step,order', [
    ('after_batch', 19, 3000), ('after_train', 12, 3000), ('before_validate', 18, 3000),
    ('after_epoch', 12, CSVLogger.order+100)])  # the row of epoch 1 is written, and the checkpoint is not
@pytest.mark.parametrize('in_fit', [False, True])
def test_a_csv_logger_goes_on_in_a_resumed_run(event, step, order, in_fit, tmp_path):
    "Also if a row was written whose epoch is trained again"
    def start(path, *cbs, **kwargs):
        path.mkdir(exist_ok=True)
        logger = CSVLogger()
        learn = learner(path, [*cbs] + [logger]*(not in_fit))
        fit(learn, cycle_len=4, cbs=[logger]*in_fit, **kwargs)
        return learn,logger
    start(tmp_path/'whole')
    path = tmp_path/'cut'
    strike = CrashAt(event, step, order=order)
    with pytest.raises(KeyboardInterrupt): start(path, strike, checkpoint='run')
    learn,logger = start(path, checkpoint='run', resume=True)
    assert no_times(path) == no_times(tmp_path/'whole') and rows(path) == ['epoch','0','1','2','3']
    start(path, checkpoint='run', resume=True)  # a run that is complete
    assert rows(path) == ['epoch','0','1','2','3']
    assert 'before_fit' not in vars(logger) and not list(path.glob('*.tmp'))
    logger.learn = None
    fit(learner(path, logger), cycle_len=1)  # another fit begins a file again
    assert rows(path) == ['epoch','0']

def test_a_csv_logger_that_appends_keeps_earlier_runs(tmp_path):
    logger = lambda: CSVLogger(append=True)
    fit(learner(tmp_path, logger()), cycle_len=2)
    with pytest.raises(KeyboardInterrupt):
        fit(learner(tmp_path, [logger(), CrashAt('after_batch', 12)]), checkpoint='run')
    fit(learner(tmp_path, logger()), checkpoint='run', resume=True)
    assert rows(tmp_path) == ['epoch','0','1','epoch','0','1','2']

def before_row(tmp_path):
    "A run that is cut after a row was written, and before the checkpoint of its epoch"
    strike = CrashAt('after_epoch', 12, order=CSVLogger.order+100)
    with pytest.raises(KeyboardInterrupt): fit(learner(tmp_path, [CSVLogger(), strike]), checkpoint='run')
    return tmp_path/'history.csv'

def test_a_csv_file_that_windows_does_not_replace_goes_on(tmp_path, monkeypatch):
    "The Learner of the interrupted fit still has it open there"
    file,replace = before_row(tmp_path),os.replace
    def replace_others(a, b):
        if b == file: raise PermissionError(13, 'it is open')
        replace(a, b)
    monkeypatch.setattr(os, 'replace', replace_others)
    fit(learner(tmp_path, CSVLogger()), checkpoint='run', resume=True)
    assert rows(tmp_path) == ['epoch','0','1','2'] and not list(tmp_path.glob('*.tmp'))

def test_a_csv_file_in_any_encoding_goes_on(tmp_path):
    file = before_row(tmp_path)
    name = 'Güte'.encode('latin1')
    file.write_bytes(file.read_bytes().replace(b'accuracy', name))
    fit(learner(tmp_path, CSVLogger()), checkpoint='run', resume=True)
    header,*epochs = file.read_bytes().splitlines()
    assert name in header and [o[:2] for o in epochs] == [b'0,', b'1,', b'2,']

class OwnFile(CSVLogger):
    def before_fit(self):
        super().before_fit()
        self.file.write('# mine\n')

class OtherName(CSVLogger):
    def __init__(self): super().__init__('history.csv')

def test_a_logger_that_cannot_be_continued_is_named(tmp_path):
    for cls,is_named in (OwnFile, True),(OtherName, False):
        path = tmp_path/cls.__name__
        path.mkdir()
        with pytest.raises(KeyboardInterrupt):
            fit(learner(path, [cls(), CrashAt('after_batch', 12)]), checkpoint='run')
        with told() as texts: fit(learner(path, cls()), checkpoint='run', resume=True)
        assert ['OwnFile' in o and 'EpochCSV' in o for o in texts] == [True]*is_named
        if not is_named: assert rows(path) == ['epoch','0','1','2']

def test_empty_bytes_are_saved(tmp_path):
    class Key(Callback):
        def __init__(self): self.key = b''
    with told() as texts: fit(learner(tmp_path, Key()), checkpoint='run', cycle_len=1)
    assert texts == [] and (tmp_path/'models/run.ckpt').exists()

# more epochs

def test_training_on_after_a_run_is_complete(tmp_path, capsys):
    "The line that the error shows works, in a new process, too"
    run = dict(checkpoint='run', resume=True)
    done = in_silence(learner(tmp_path), 0.1, cycle_len=2, **run)
    at_end = weights(done)
    in_silence(done, 0.05, cycle_len=3)
    text = untouched(learner(tmp_path), ValueError, 0.1, cycle_len=3, **run)
    assert 'cycle_len: 2 in the checkpoint, 3 in this run' in text and 'n_cycle=1, cycle_len=2' in text
    line = re.search(r'learn\.fit_clr_beta\(.*?\)', text)[0]
    assert "cycle_len=3" in line and "checkpoint='run_2'" in line
    learn = in_silence(learner(tmp_path), 0.1, cycle_len=2, **run)
    assert weights(learn) == at_end
    with learn.no_bar(), learn.no_logging(): eval(line, dict(learn=learn, lrs=0.05))
    assert outcome(learn) == outcome(done) and len(learn.recorder.values) == 3

# what the Recorder holds after the fit

def lines(learn): return [o.get_ydata().tolist() for o in learn.plot_overfit()[0].lines]

@pytest.mark.parametrize('look', [
    lambda l: l.validate(), lambda l: l.get_preds(), lambda l: search(l, trials=[0.1]),
    lambda l: (l.validate(), search(l), l.get_preds(dl=l.dls.train))])
def test_plot_overfit_shows_the_last_fit_whatever_came_since(look, tmp_path):
    learn = fit(learner(tmp_path))
    drawn = lines(learn)
    assert drawn == [[o[i] for o in learn.recorder.values] for i in (0,1)]
    with learn.no_bar(), learn.no_logging(): look(learn)
    assert lines(learn) == drawn
    fit(learn, cycle_len=2)
    assert len(lines(learn)[0]) == 2

def test_plot_overfit_does_not_take_an_old_fit_for_the_last(tmp_path):
    learn = fit(learner(tmp_path))
    with learn.no_bar(), learn.no_logging():
        learn.fit(2, 0.01)
        assert len(lines(learn)[0]) == 2  # a stock fit, right after it
        learn.validate()
        with pytest.raises(ValueError, match='validate, get_preds and predict empty'): learn.plot_overfit()
    with pytest.raises(ValueError, match='no fit is recorded'): learner(tmp_path).plot_overfit()

def test_plot_overfit_after_an_interrupt(tmp_path):
    learn = killed(learner(tmp_path, CrashAt('after_batch', 14)), checkpoint=None, every_iter=None)
    assert len(lines(learn)[0]) == 2
    with learn.no_bar(), learn.no_logging(): learn.validate()
    assert len(lines(learn)[0]) == 2

def test_plot_overfit_with_epochs_that_were_skipped_or_cut(tmp_path):
    assert len(lines(fit(learner(tmp_path), start_epoch=1))[0]) == 2
    class Validates(FitCallback):
        order = 90
        def after_epoch(self):
            if self.epoch == 0: self.learn.validate()
    causes = {Validates():'a callback ended them early', ShortEpochCallback(0.5):'no epoch with both losses'}
    for cb,cause in causes.items():
        with pytest.raises(ValueError, match=cause): fit(learner(tmp_path, cb)).plot_overfit()
    no_validation = learner(tmp_path)
    no_validation.dls = DataLoaders(no_validation.dls.train, device='cpu')
    with pytest.raises(ValueError, match='no epoch with both losses'): fit(no_validation).plot_overfit()
    plt.close('all')

# data that cannot be trained on

def norm_net(): return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
def odd(**kwargs): return DataLoader(list(zip(x[:33], y[:33])), bs=16, shuffle=True, **kwargs)

def test_a_last_batch_of_one_item(tmp_path):
    learn = learner(tmp_path, train=odd, model=norm_net)
    assert 'one item' in untouched(learn, ValueError, 0.1)
    fit(learner(tmp_path, train=partial(odd, drop_last=True), model=norm_net))
    fit(learner(tmp_path, train=odd))  # no BatchNorm
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match='one item'): learn.fit_clr_beta(0.1)
    assert torch.get_rng_state().equal(state)

@pytest.mark.parametrize('freeze', [lambda l: l.model.requires_grad_(False),
                                    lambda l: (l.create_opt(), l.model.requires_grad_(False))])
def test_a_network_that_is_frozen_as_a_whole(freeze, tmp_path):
    for f in Learner.fit_clr_beta,Learner.lr_find_val,Learner.plot_clr_beta:
        learn = learner(tmp_path)
        freeze(learn)
        with pytest.raises(ValueError, match='all parameters are frozen'):
            f(learn, 0.1) if f is not Learner.lr_find_val else f(learn, show_plot=False)

class Endless(torch.utils.data.IterableDataset):
    def __iter__(self): return zip(x, y)

class Counted(Endless):
    def __len__(self): return len(x)

def test_loaders_without_a_length(tmp_path):
    text = untouched(learner(tmp_path, train=lambda: TorchDL(Endless(), 16)), ValueError, 0.1)
    assert 'training loader has no length' in text and '__len__' in text
    learn = learner(tmp_path)
    learn.dls = DataLoaders(learn.dls.train, TorchDL(Endless(), 16))
    assert 'validation loader has no length' in untouched(learn, ValueError, 0.1)
    fit(learner(tmp_path, train=lambda: TorchDL(Counted(), 16)))
    fit(learner(tmp_path, train=lambda: DataLoader(Endless(), bs=16, n=len(x))))

def test_batches_without_labels(tmp_path):
    unlabelled = lambda: DataLoader([(o,) for o in x], bs=16)
    learn = learner(tmp_path, train=unlabelled)
    before = weights(learn)
    with pytest.raises(ValueError, match='no labels'): fit(learn)
    assert weights(learn) == before
    learn = learner(tmp_path)
    learn.dls = DataLoaders(learn.dls.train, unlabelled())
    fit(learn, best_save_name=None)  # it trains, and has no validation loss
    assert learn.recorder.values[-1][1] is None

def test_a_learner_without_data(tmp_path):
    learn = learner(tmp_path)
    learn.dls = DataLoaders(DataLoader([], bs=16), DataLoader([], bs=16))
    for f in partial(learn.fit_clr_beta, 0.1),partial(learn.lr_find_val, show_plot=False):
        with pytest.raises(ValueError, match='no training data.*load_learner.*learn.dls'): f()

def test_an_optimiser_that_takes_no_learning_rate(tmp_path):
    learn = learner(tmp_path, opt_func=lambda params: sgd(params, lr=0.1))
    for f in partial(learn.fit_clr_beta, 0.1),partial(learn.lr_find_val, show_plot=False):
        with pytest.raises(ValueError, match="opt_func can't make an optimiser with a learning rate"): f()

def test_a_fit_keeps_the_ratios_of_the_groups_in_the_test(tmp_path):
    "As `start_lr` gives them, or `learn.lr`; a slice of the result has its own"
    def two_groups(**kwargs):
        return learner(tmp_path, splitter=lambda m: [params(m[0]), params(m[3])], **kwargs)
    def peaks(learn, lrs):
        set_rates = []
        class Rates(Callback):
            def after_batch(self): set_rates.append(tuple(h['lr'] for h in self.opt.hypers))
        fit(learn, lrs, cycle_len=1, cbs=Rates())
        return max(set_rates)
    learn = two_groups()
    found = search(learn, start_lr=slice(1e-6, 1e-4))
    assert peaks(learn, found) == pytest.approx((found.peak/100, found.peak))
    assert peaks(learn, slice(found.peak/10, found.peak)) == pytest.approx((found.peak/10, found.peak))
    found = search(two_groups(lr=slice(1e-4, 1e-3), opt_func=Adam))
    assert found.ratios == pytest.approx([0.1, 1])
    assert peaks(two_groups(), found) == pytest.approx((found.peak/10, found.peak))
    assert search(two_groups()).ratios is None
