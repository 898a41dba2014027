"`fit_clr_beta` beside everything else a Learner can be"
import pickle
import pytest
from fastai.tabular.all import *
from fastai.text.all import *
from fastai_clrbeta.all import *
from fastai_clrbeta.learner import observes
from helpers import digits

nan = float('nan')

def loaders(n=256):
    dls = digits()
    dls.train.n = n
    return dls

def model():
    body = nn.Sequential(ConvLayer(8, 8, stride=2), nn.Flatten())
    return nn.Sequential(ConvLayer(3, 8), body, nn.Linear(8*16, 10))

def learner(dls=None, **kwargs):
    "A small network on digits, with 8 batches in an epoch"
    kwargs = dict(loss_func=CrossEntropyLossFlat(), opt_func=sgd, metrics=accuracy) | kwargs
    return Learner(dls or loaders(), model(), **kwargs)

def quiet(learn, *args, **kwargs):
    with learn.no_bar(), learn.no_logging(): learn.fit_clr_beta(*args, **kwargs)

def check(learn, lrs=0.05, n_cycle=1, cycle_len=2, **kwargs):
    "Train; check the learning rate of every batch, and that the loss is a number. Return which weights moved"
    before = [p.detach().clone() for p in learn.model.parameters()]
    quiet(learn, lrs, n_cycle, cycle_len=cycle_len, **kwargs)
    nb = len(learn.dls.train)*cycle_len
    peak = lrs if isinstance(lrs, float) else lrs.stop
    want = [peak*clr_beta_lr(i, nb) for i in range(nb*n_cycle)]
    np.testing.assert_allclose(learn.recorder.lrs, want, rtol=1e-9)
    np.testing.assert_allclose(learn.recorder.hps['lr'], want, rtol=1e-9)
    assert len(learn.recorder.hps['mom']) == nb*n_cycle
    assert math.isfinite(learn.recorder.losses[-1])
    return [not torch.equal(a, b) for a,b in zip(before, learn.model.parameters())]

def test_trains():
    learn = learner()
    assert all(check(learn, cycle_len=4))
    assert learn.recorder.values[-1][2] > 0.8
    learn.recorder.plot_sched()

changes = dict(
    accumulation = lambda l: l.add_cb(GradientAccumulation(64)),
    clip         = lambda l: l.add_cb(GradientClip(0.1)),
    mixup        = lambda l: l.add_cb(MixUp()),
    channelslast = lambda l: l.to_channelslast(use_amp=False),
    no_progress  = lambda l: l.remove_cb(ProgressCallback))

@pytest.mark.parametrize('change', changes.values(), ids=changes)
def test_beside(change):
    learn = learner()
    change(learn)
    assert all(check(learn))

@pytest.mark.parametrize('to,dtype', [(Learner.to_fp16, torch.float16), (Learner.to_bf16, torch.bfloat16)])
@pytest.mark.filterwarnings('ignore:.*CUDA is not available:UserWarning')
def test_half_precision(to, dtype, monkeypatch):
    "The CPU's autocast takes the place of CUDA's, which fastai asks for"
    autocast = lambda device, dtype: torch.autocast('cpu', dtype=dtype)
    monkeypatch.setattr('fastai.callback.fp16.autocast', autocast)
    learn,seen = learner(),set()
    to(learn)
    learn.model[0][0].register_forward_hook(lambda m,i,o: seen.add(o.dtype))
    assert all(check(learn)) and seen == {dtype}

def test_accumulation_steps_with_the_learning_rate_of_its_last_batch():
    steps = []
    class Steps(Callback):
        def after_step(self): steps.append((self.train_iter, self.opt.hypers[-1]['lr']))
    learn = learner(cbs=[GradientAccumulation(64), Steps()])
    check(learn)
    assert [i for i,_ in steps] == list(range(1,16,2))
    np.testing.assert_allclose([lr for _,lr in steps], learn.recorder.hps['lr'][1::2])

def test_frozen_body_with_slice():
    learn = learner(splitter=lambda m: [params(m[0]), params(m[1]), params(m[2])], train_bn=False)
    learn.freeze()
    moved = check(learn, slice(1e-4,1e-1))
    n = len(params(learn.model[2]))
    assert moved == [False]*(len(moved)-n) + [True]*n
    lrs = [h['lr'] for h in learn.opt.hypers]
    np.testing.assert_allclose(np.array(lrs)/lrs[-1], [1e-3, 10**-1.5, 1], rtol=1e-6)
    learn.unfreeze()
    assert all(check(learn, slice(1e-4,1e-1)))

def batches(n):
    dl = loaders(n).train
    return [tuple(o.as_subclass(Tensor) for o in b) for b in dl]

def test_torch_loaders():
    from torch.utils.data import DataLoader as TorchDL, TensorDataset
    x,y = (torch.cat(o) for o in zip(*batches(256)))
    dls = DataLoaders(TorchDL(TensorDataset(x,y), 32, shuffle=True), TorchDL(TensorDataset(x,y), 64))
    assert all(check(learner(dls)))

def test_without_validation():
    for valid in [], [[]]:
        learn = learner(DataLoaders(batches(256), *valid))
        loaders = learn.dls.loaders
        with tempfile.TemporaryDirectory() as d:
            learn.path = Path(d)
            assert all(check(learn, best_save_name='best', cycle_save_name='c'))
            assert {o.name for o in Path(d).glob('models/*')} == {'best.pth','c_cyc_0.pth'}
        assert learn.dls.loaders is loaders

def test_without_recorder():
    learn = learner()
    learn.remove_cbs([ProgressCallback, Recorder])
    learn.fit_clr_beta(0.05)
    with pytest.raises(ValueError, match='Recorder'): learn.fit_clr_beta(0.05, best_save_name='best')

def test_tabular():
    df = pd.DataFrame(dict(a=np.random.randn(320), b=np.random.choice(list('xyz'), 320)))
    df['y'] = (df.a > 0).astype(int)
    dls = TabularDataLoaders.from_df(df, procs=[Categorify,Normalize], cat_names=['b'], cont_names=['a'],
                                     y_names='y', y_block=CategoryBlock(), bs=32)
    check(tabular_learner(dls, layers=[10], metrics=accuracy), 0.01)

def test_text(monkeypatch):
    monkeypatch.setattr(defaults, 'cpus', 0)  # split the texts into words in this process
    df = pd.DataFrame(dict(text=['a good film it was', 'what a bad bad film']*40, label=[1,0]*40))
    dls = TextDataLoaders.from_df(df, text_col='text', label_col='label', bs=8)
    config = awd_lstm_clas_config | dict(emb_sz=8, n_hid=8)
    check(text_classifier_learner(dls, AWD_LSTM, config=config, pretrained=False, metrics=accuracy), 0.01)

def test_reset_opt():
    learn = learner()
    check(learn); opt = learn.opt
    check(learn); assert learn.opt is opt
    check(learn, reset_opt=True); assert learn.opt is not opt
    learn.opt_func = SGD
    with pytest.raises(ValueError, match='without momentum'): quiet(learn, 0.1, reset_opt=True)

def test_a_fraction_for_a_percentage():
    with pytest.warns(UserWarning, match='pct=0.3 is 0.3 % of the cycle. Was pct=30 meant'):
        learner().plot_clr_beta(0.1, use_clr_beta=(10,0.3))

# invalid arguments

bad_schedules = {
    (0,10): 'div=0', (-1,10): 'div=-1', ('10',10): "div='10'",
    (10,100): 'pct=100', (10,-1): 'pct=-1', (10,nan): 'pct=nan',
    (10,10,0.95): 'give both', (10,10,1.,0.8): 'mom_max=1.0',
    (10,10,0.8,0.95): 'mom_min=0.95', (10,10,0.9,-0.1): 'mom_min=-0.1',
    (10,10,None,None,0): 'cycle_len=0', (10,10,None,None,1.5): 'cycle_len=1.5'}

@pytest.mark.parametrize('args,msg', bad_schedules.items(), ids=str)
def test_a_schedule_is_checked_when_it_is_made(args, msg):
    with pytest.raises(ValueError, match=msg): CLRBeta(*args)

@pytest.mark.parametrize('lrs', ['0.1', b'1', True, [0.1,0.2], -0.5, slice(-1,0.1)])
def test_peaks_are_checked_before_the_first_batch(lrs):
    learn = learner()
    before = [o.clone() for o in learn.model.parameters()]
    with pytest.raises(ValueError, match='lrs='), learn.no_bar(): learn.fit(1, 0.01, cbs=CLRBeta(lrs=lrs))
    assert all(a.equal(b) for a,b in zip(before, learn.model.parameters()))

bad_arguments = [
    (dict(use_clr_beta=(10,10,0.95)),    'use_clr_beta=(10, 10, 0.95)'),
    (dict(use_clr_beta=10),              'use_clr_beta=10'),
    (dict(use_clr_beta=slice(10)),       'use_clr_beta=slice'),
    (dict(use_clr_beta=(10,100)),        'pct=100'),
    (dict(use_clr_beta=(0,10)),          'div=0'),
    (dict(use_clr_beta=(10,10,0.8,0.9)), 'mom_min=0.9'),
    (dict(use_clr_beta=(10,10,1.1,0.9)), 'mom_max=1.1'),
    (dict(use_clr_beta=(10,95)),         'at least 40 steps'),
    (dict(cycle_len=0),                  'cycle_len=0'),
    (dict(n_cycle=0),                    'n_cycle=0'),
    (dict(n_cycle=1.5),                  'n_cycle=1.5'),
    (dict(n_cycle=0.1),                  'The learning rate comes first'),
    (dict(lrs=None),                     'lrs=None'),
    (dict(lrs=None),                     'says why it has no peak'),
    (dict(lrs=SimpleNamespace(peak=None, why='it never turned')), 'without a peak: it never turned'),
    (dict(lrs=-1),                       'lrs=-1'),
    (dict(lrs=nan),                      'lrs=nan'),
    (dict(lrs='0.1'),                    "lrs='0.1'"),
    (dict(lrs=True),                     'lrs=True'),
    (dict(lrs=slice(0.1,None)),          'lrs=slice'),
    (dict(lrs=[0.1,0.2]),                '2 values for 1 parameter group(s). Give one number, or give'),
    (dict(wds=-1),                       'wd=-1'),
    (dict(wd=-1),                        'wd=-1'),
    (dict(wd=0.1, wds=0.1),              'wd=0.1, wds=0.1')]

bad_options = [
    (dict(cbs=42),                       'cbs: 42'),
    (dict(cbs=[CLRBeta,'x']),            'is not a Callback'),
    (dict(best_save_name=3),             'best_save_name=3'),
    (dict(cycle_save_name='x/y'),        'there is no folder'),
    (dict(start_epoch=1),                'start_epoch=1'),
    (dict(start_epoch=-1),               'start_epoch=-1'),
    (dict(on_diverge='no'),              "on_diverge='no'"),
    (dict(on_diverge=True),              'on_diverge=True'),
    (dict(on_diverge='lengthen', lengthen=1.5),     'lengthen=1.5'),
    (dict(on_diverge='stop', lengthen=(1,3)),       'lengthen[0]=1'),
    (dict(on_diverge='lengthen', lengthen=(1.5,0)), 'lengthen[1]=0'),
    (dict(on_diverge='lengthen', cycle_len=0),      'cycle_len=0'),
    (dict(on_diverge='lengthen', cycle_len='3'),    "cycle_len='3'"),
    (dict(keep=[1]),                     'keep=')]

def everything_of(learn):
    "What a call that fails must not touch"
    hypers = learn.opt and [dict(h) for h in learn.opt.hypers]
    weights = [p.tolist() for p in learn.model.parameters()]
    return id(learn.opt), learn.lr, hypers, [*map(id, (*learn.cbs, *learn.dls.loaders))], weights

def refuses(learn, msg, **kwargs):
    before = everything_of(learn)
    with pytest.raises(ValueError, match=re.escape(msg)): learn.fit_clr_beta(**dict(lrs=0.1) | kwargs)
    assert everything_of(learn) == before

def few_steps(**kwargs): return learner(DataLoaders(batches(128), batches(64)), **kwargs)

@pytest.mark.parametrize('trained', [False, True])
def test_a_bad_call_changes_nothing(trained):
    learn = few_steps()
    if trained: quiet(learn, 0.01)
    for kwargs,msg in bad_arguments + bad_options: refuses(learn, msg, **kwargs)

@pytest.mark.parametrize('opt_func,msg', [
    (torch.optim.SGD, 'opt=torch.optim.SGD'), (SGD, 'without momentum'), (RMSProp, 'without momentum'),
    (partial(OptimWrapper, opt=torch.optim.Adagrad), 'no momentum')])
def test_an_optimiser_that_cannot_run_the_schedule_is_refused(opt_func, msg):
    learn = learner(opt_func=opt_func)
    refuses(learn, msg)
    with pytest.raises(ValueError, match=msg): learn.plot_clr_beta(0.1)

@pytest.mark.parametrize('opt_func', [SGD, partial(OptimWrapper, opt=torch.optim.Adagrad)])
def test_an_optimiser_without_momentum_runs_a_schedule_without_it(opt_func):
    learn = learner(opt_func=opt_func)
    quiet(learn, 0.01, use_clr_beta=(10,10))
    assert len(learn.recorder.hps['lr']) == 8

def test_a_plot_refuses_what_the_fit_refuses():
    n,learn = len(plt.get_fignums()),few_steps()
    for kwargs,msg in bad_arguments:
        with pytest.raises(ValueError, match=re.escape(msg)): learn.plot_clr_beta(**dict(lrs=0.1) | kwargs)
    assert len(plt.get_fignums()) == n

# beside export

def test_export_and_pickle(tmp_path):
    learn = learner(path=tmp_path, cbs=CLRBeta(5, 20))
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 0.05)
    np.testing.assert_allclose(learn.recorder.lrs, [0.05*clr_beta_lr(i, 8, 5, 20) for i in range(8)])
    cb = pickle.loads(pickle.dumps(CLRBeta(10, 13.68, 0.95, 0.8, cycle_len=2)))
    assert (cb.div, cb.pct, cb.mom_max, cb.mom_min, cb.cycle_len) == (10, 13.68, 0.95, 0.8, 2)
    item = learn.dls.valid_ds.items[0][0]
    with learn.no_bar(): want = learn.predict(item)
    learn.export()
    got = load_learner(tmp_path/'export.pkl')
    with got.no_bar(): np.testing.assert_allclose(got.predict(item)[2], want[2], rtol=1e-5)

# what is saved, and when

def test_cycles_are_saved_after_their_last_step(tmp_path):
    ends = {}
    class Keep(Callback):
        order = 98
        def after_train(self): ends[self.epoch] = [o.clone() for o in self.model.state_dict().values()]
    learn = learner(path=tmp_path)
    quiet(learn, 0.05, 3, cycle_len=2, cycle_save_name='run', cbs=Keep())
    assert sorted(o.name for o in (tmp_path/'models').iterdir()) == [f'run_cyc_{k}.pth' for k in range(3)]
    for k in range(3):
        sd = torch.load(tmp_path/f'models/run_cyc_{k}.pth')['model']
        assert all(torch.equal(a, b) for a,b in zip(sd.values(), ends[2*k+1]))
    quiet(learn, 0.05, 3, cycle_len=2, cycle_save_name='tail', start_epoch=4)
    assert [o.name for o in (tmp_path/'models').glob('tail*')] == ['tail_cyc_2.pth']

@pytest.mark.parametrize('name,metric,loss,best', [
    ('score',      [.2,.5,.4,.5,.1], [1.,2.,3.,1.,4.], 3),   # a tie goes to the lower loss
    ('score',      [.2,.5,.4,.5,.1], [1.,1.,3.,2.,4.], 1),
    ('score',      [nan,.1,nan,.3,nan], [1.,1.,1.,1.,1.], 3), # NaN is never best
    ('error_rate', [.5,.2,.4,.2,.6], [1.,2.,3.,1.,4.], 3),   # less is better
    ('rmse',       [.5,.2,.1,.2,.6], [1.,2.,3.,1.,4.], 2),
    (None,         None,             [3.,nan,1.,2.,1.], 2)])
def test_best(tmp_path, name, metric, loss, best):
    score = ValueMetric(lambda: metric[learn.epoch], name)
    learn = learner(path=tmp_path, metrics=[] if name is None else [score, accuracy])
    kept = {}
    class Script(Callback):
        "Give the epochs scripted losses, and remember their weights"
        order = Recorder.order+1
        def after_epoch(self):
            self.recorder.values[-1][1] = loss[self.epoch]
            kept[self.epoch] = [o.clone() for o in self.model.state_dict().values()]
    quiet(learn, 0.05, 1, cycle_len=5, best_save_name='best', cbs=Script())
    sd = torch.load(tmp_path/'models/best.pth')['model']
    assert [k for k,v in kept.items() if all(torch.equal(a, b) for a,b in zip(sd.values(), v))] == [best]

def test_what_a_callback_validates_is_not_the_epochs(tmp_path):
    scores,asked = [.9,.5,.8,.7,.1,.9],[]  # before and after each epoch
    class Before(Callback):
        order = Recorder.order+1
        def before_train(self):
            self.learn._do_epoch_validate()
            self.learn.dl = self.dls.train
            self.model.train()
            self.learn.training = True
    score = ValueMetric(lambda: asked.append(1) or scores[len(asked)-1], 'score')
    learn = learner(path=tmp_path, metrics=score)
    saves = []
    learn.save = lambda *args, **kwargs: saves.append(learn.epoch)
    quiet(learn, 0.05, 1, cycle_len=3, best_save_name='best', cbs=Before())
    assert len(asked) == 6 and saves == [0,1,2]

# interrupts

@pytest.mark.parametrize('exc', [KeyboardInterrupt, RuntimeError])
def test_interrupt_keeps_the_record(exc):
    class Stop(Callback):
        def after_step(self):
            if self.train_iter == 5: raise exc('stop')
    learn = learner()
    cbs = list(learn.cbs)
    with pytest.raises(exc): learn.fit_clr_beta(0.05, cycle_len=2, cbs=Stop())
    assert list(learn.cbs) == cbs
    np.testing.assert_allclose(learn.recorder.hps['lr'], [0.05*clr_beta_lr(i, 16) for i in range(6)])
    learn.recorder.plot_sched()
    check(learn)

def test_stopped_cycle_is_not_saved(tmp_path):
    learn = learner(path=tmp_path, cbs=TerminateOnNaNCallback())
    class Explode(Callback):
        order = -11
        def after_loss(self):
            if self.training: self.learn.loss = self.learn.loss*nan
    quiet(learn, 0.05, cycle_save_name='run', cbs=Explode())
    assert not (tmp_path/'models').exists()

of_fastai = {
    True:  [mse, rmse, mae, msle, exp_rmspe, Perplexity(), error_rate, BrierScore(), HammingLoss()],
    False: [accuracy, accuracy_multi, top_k_accuracy, foreground_acc, BalancedAccuracy(), PrecisionMulti(),
            Recall(), F1Score(), F1ScoreMulti(), FBeta(2), Jaccard(), RocAuc(), APScoreBinary(), CohenKappa(),
            MatthewsCorrCoef(), ExplainedVariance(), R2Score(), PearsonCorrCoef(), SpearmanCorrCoef(),
            Dice(), DiceMulti(), JaccardCoeff(), JaccardCoeffMulti(), CorpusBLEUMetric()]}

@pytest.mark.parametrize('lower', [True, False])
def test_the_direction_of_metrics_of_fastai_is_known(lower):
    names = [mk_metric(o).name for o in of_fastai[lower]]
    assert {o:lower_is_better(o) for o in names} == dict.fromkeys(names, lower)

@pytest.mark.parametrize('name,lower', [
    ('focal_loss', True), ('absolute_error', True), ('power', None), ('fid', None), ('my_accuracy', None)])
def test_the_direction_of_other_metrics_is_asked_for(name, lower, tmp_path, capsys, recwarn):
    assert lower_is_better(name) is lower
    learn = learner(path=tmp_path, metrics=ValueMetric(lambda: learn.epoch, name))
    quiet(learn, 0.05, best_save_name='best')
    assert f"the epoch with the {'lowest' if lower else 'highest'} {name}" in capsys.readouterr().out
    asks = 'Pass best_save_lower=True or best_save_lower=False'
    assert sum(asks in str(o.message) for o in recwarn) == (lower is None)

@pytest.mark.parametrize('lower,best', [(None,1), (True,2), (False,1)])
def test_the_better_way_can_be_said_and_is_told(lower, best, tmp_path, capsys):
    learn = learner(path=tmp_path, metrics=ValueMetric(lambda: [.2,.5,.1][learn.epoch], 'power'))
    quiet(learn, 0.05, 1, cycle_len=3, best_save_name='best', best_save_lower=lower)
    assert f"the epoch with the {'lowest' if lower else 'highest'} power" in capsys.readouterr().out
    kept = []
    save,learn.save = learn.save,lambda *args, **kwargs: (kept.append(learn.epoch), save(*args, **kwargs))
    quiet(learn, 0.05, 1, cycle_len=3, best_save_name='best', best_save_lower=lower)
    assert kept[-1] == best
    with pytest.raises(ValueError, match="best_save_lower='yes'"):
        quiet(learn, 0.05, best_save_name='best', best_save_lower='yes')

def test_a_metric_that_is_no_number_leaves_it_to_the_loss(tmp_path):
    learn = learner(path=tmp_path, metrics=F1Score(average=None))
    with pytest.warns(UserWarning, match='metric f1_score is not a single number, so the loss decides'):
        quiet(learn, 0.05, 1, cycle_len=2, best_save_name='best')
    assert (tmp_path/'models/best.pth').exists()

def test_a_metric_that_is_never_finite_is_warned_of(tmp_path, recwarn):
    learn = learner(path=tmp_path, metrics=ValueMetric(lambda: nan, 'score'))
    quiet(learn, 0.05, 1, cycle_len=2, best_save_name='best', best_save_lower=False)
    assert not (tmp_path/'models').exists()
    assert [str(o.message) for o in recwarn if 'best_save_name' in str(o.message)] == [
        'best_save_name: best was not saved: no epoch ended with a finite score from a complete validation.']

@pytest.mark.parametrize('names,kw', [
    (('lr','lr'), dict(train_metrics=True)), (('loss','loss'), dict(train_metrics=True)),
    (('valid_loss','time'), dict(add_time=False)), (('train_loss','valid_loss'), {}), (('score','score'), {}),
    (('a/b: {c} \u00e9\n%s','epoch'), {})])
def test_the_first_metric_decides_whatever_its_name(names, kw, tmp_path):
    saves,vals = [],dict(zip(range(4), [.2,.5,.4,.6]))
    scores = [ValueMetric(lambda: vals[learn.epoch], names[0]), ValueMetric(lambda: -learn.epoch, names[1])]
    learn = learner(path=tmp_path, metrics=scores)
    learn.remove_cb(Recorder)
    learn.add_cb(Recorder(**kw))
    learn.save = lambda *args, **kwargs: saves.append(learn.epoch)
    quiet(learn, 0.05, 1, cycle_len=4, best_save_name='best', best_save_lower=False)
    assert saves == [0,1,3]
    learn.plot_overfit()
    plt.close('all')

def test_an_epoch_without_validation_is_not_the_best(tmp_path):
    class Seldom(Callback):
        def before_validate(self):
            if self.epoch % 2 == 0: raise CancelValidException
    class Looks(Callback):
        "A callback may validate"
        order = 90
        def after_epoch(self):
            with self.learn.no_mbar(): Learner.validate(self.learn.twin)
    for metrics in [], accuracy:
        saves,learn = [],learner(path=tmp_path, metrics=metrics)
        learn.save = lambda *args, **kwargs: saves.append(learn.epoch)
        quiet(learn, 0.05, 1, cycle_len=4, best_save_name='best', cbs=Seldom())
        assert saves and not {0,2} & set(saves)
    with pytest.warns(UserWarning, match='no epoch ended with a finite accuracy from a complete validation'):
        quiet(learner(path=tmp_path), 0.05, 1, best_save_name='best', cbs=ShortEpochCallback(0.5))

def test_names_under_which_nothing_can_be_saved_are_refused_at_once(tmp_path):
    learn = learner(path=tmp_path, model_dir='.')
    (tmp_path/'d').mkdir()
    (tmp_path/'file').touch()
    bad = {'x'*300: "='x+…': this name is too long", 'x'*300+'/y': 'too long'}
    bad |= dict.fromkeys(('a'+'/b'*3000, 'no/a', 'file/a'), 'there is no folder')
    bad |= dict.fromkeys(('a\0b', '\ud800', '..', 'd/..', 'a/', 'd/.', '', b'a'), 'must be a name')
    for name,msg in bad.items():
        for k in 'cycle_save_name','best_save_name','checkpoint':
            with pytest.raises(ValueError, match=f"{k}.*{msg}"): quiet(learn, 0.05, **{k:name})
    assert learn.opt is None and sorted(o.name for o in tmp_path.iterdir()) == ['d','file']
    quiet(learn, 0.05, checkpoint='a', best_save_name='d/a', cycle_save_name=tmp_path/'d/b')
    assert (tmp_path/'a.ckpt').exists()
    assert sorted(o.name for o in (tmp_path/'d').iterdir()) == ['a.pth','b_cyc_0.pth']

def test_a_folder_that_is_none_is_refused_at_once(tmp_path):
    learn = learner(path=tmp_path)
    (tmp_path/'models').touch()
    for k in 'cycle_save_name','best_save_name','checkpoint':
        msg = f"{k}='a': can't write in .*models"
        with pytest.raises(ValueError, match=msg): quiet(learn, 0.05, **{k:'a'})
    assert learn.opt is None

class Power(CLRBeta):
    "A schedule as a user writes it in a notebook"
    def __init__(self, power, **kwargs):
        super().__init__(**kwargs)
        self.curve = lambda i, nb: max(0.01, 1-i/nb)**power
    def lr_at(self, i, nb): return self.curve(i, nb)

def saved(path, schedule, lr=0.5, n_cycle=1, **kwargs):
    "Train cycles of 16 steps with a checkpoint in `path`, and return the learning rates"
    learn = learner(path=path)
    quiet(learn, lr, n_cycle, cycle_len=2, use_clr_beta=schedule, checkpoint='run', **kwargs)
    return learn.recorder.lrs

def refused(path, schedule, msg, **kwargs):
    with pytest.raises(ValueError, match=msg): saved(path, schedule, resume=True, **kwargs)

def test_a_schedule_is_known_by_its_values(tmp_path):
    class Other(Power): pass
    lrs = saved(tmp_path, Power(2))
    assert lrs[:3] == [0.5, 0.5*(15/16)**2, 0.5*(14/16)**2]
    assert saved(tmp_path, Other(2), resume=True) == lrs

class Later(Power):
    "Like `Power`, until step 5"
    def lr_at(self, i, nb): return super().lr_at(i, nb) if i < 5 else 0.8

def test_the_first_step_of_another_schedule_is_named(tmp_path):
    saved(tmp_path, Power(2))
    differs = 'learning rate from step'
    refused(tmp_path, Power(3), f'{differs} 1 on: 0.439453 in the checkpoint, 0.411987 in this run')
    refused(tmp_path, Later(2), f'{differs} 5 on: 0.236328 in the checkpoint, 0.4 in this run')
    with_momentum = Power(2, mom_max=0.95, mom_min=0.85)
    refused(tmp_path, with_momentum, r"the optimiser's momentum: \[0.9\] in the checkpoint, none in this run")

def test_the_first_step_of_another_momentum_is_named(tmp_path):
    saved(tmp_path, (10,0,0.9,0.8))
    refused(tmp_path, (10,0,0.9,0.7), 'momentum from step 0 on: 0.8875 in the checkpoint, 0.875 in this run')

class Falls(CLRBeta):
    "A schedule may change from cycle to cycle"
    def __init__(self, last):
        super().__init__()
        self.last = last
    def lr_at(self, i, nb): return 1. if i < nb else self.last

def test_values_are_compared_in_every_cycle(tmp_path):
    saved(tmp_path, Falls(0.5), n_cycle=2)
    differs = 'learning rate from step 16 on: 0.25 in the checkpoint, 0.1 in this run'
    refused(tmp_path, Falls(0.2), differs, n_cycle=2)

def test_titles_of_schedules():
    assert 'Power' in plot_clr_beta(.1, use_clr_beta=Power(2))[0].get_title()
    axs = plot_clr_beta(.1, use_clr_beta=(10, 10, 0.9, 0.8))
    assert 'use_clr_beta=(10, 10, 0.9, 0.8)' in axs[0].get_title()

def test_a_plot_has_the_values_of_each_step():
    n = 3*98
    axs = plot_clr_beta(0.8, cycle_len=3, n_iter=98)
    lr,mom = axs[0].lines[0],axs[1].lines[0]
    np.testing.assert_allclose(lr.get_xdata(), np.arange(n)/98)
    np.testing.assert_allclose(lr.get_ydata(), [0.8*clr_beta_lr(i, n) for i in range(n)])
    np.testing.assert_allclose(mom.get_ydata(), [clr_beta_mom(i, n) for i in range(n)])
    axs = plot_clr_beta(slice(0.01,0.1), 2, cycle_len=1, use_clr_beta=(10,13.68))
    assert [o.get_text() for o in axs[0].get_legend().get_texts()] == ['group 0','group 1']
    assert not axs[1].lines
    want = [0.1*clr_beta_lr(i, 100) for i in range(200)]
    np.testing.assert_allclose(axs[0].lines[1].get_ydata(), want)
    plt.close('all')

def test_a_schedule_of_the_learner_acts_in_fits_alone(tmp_path):
    learn = learner(path=tmp_path, cbs=CLRBeta())
    class Interrupt(Callback):
        def after_step(self):
            if self.train_iter == 3: raise KeyboardInterrupt
    with learn.no_bar(), learn.no_logging():
        learn.validate(); learn.get_preds()
        learn.fit(1, 0.01)
        hps = learn.recorder.hps
        learn.lr_find(num_it=10, show_plot=False)
        n = len(learn.recorder.lrs)
        np.testing.assert_allclose(learn.recorder.lrs, [1e-7*1e8**(i/10) for i in range(n)])
        with pytest.raises(KeyboardInterrupt), learn.added_cbs(Interrupt()): learn.lr_find(num_it=10)
        learn.fit(1, 0.01)
    assert hps['lr'] == learn.recorder.hps['lr'] == [0.01*clr_beta_lr(i, 8) for i in range(8)]

@pytest.mark.parametrize('kind', [np.float32, np.float64, tensor, np.array,
                                  partial(tensor, dtype=torch.float64)])
def test_a_schedule_takes_numbers_of_any_kind(kind):
    numbers = np.float64(10), np.int64(10), np.float32(0.95), np.float64(0.85), np.int64(1)
    learn = learner()
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 0.01, cbs=CLRBeta(*numbers, lrs=kind(0.5)))
    assert max(learn.recorder.hps['lr']) == pytest.approx(0.5, rel=1e-6)
    assert {type(o) for v in learn.recorder.hps.values() for o in v} == {float}

@pytest.mark.parametrize('factor', [4, None])
def test_a_loss_that_is_nan_never_reaches_the_weights(factor):
    class NaNAt(Callback):
        order = TrainEvalCallback.order+1
        def after_pred(self):
            if self.training and self.train_iter == 7: self.learn.pred = self.pred*nan
    learn,guard = learner(),DivergenceGuard(factor)
    with learn.no_bar(), learn.no_logging(): learn.fit(2, 0.01, cbs=[guard,NaNAt()])
    assert (guard.report.step, guard.report.epoch) == (7, 0) and math.isnan(guard.report.loss)
    assert all(p.isfinite().all() for p in learn.model.parameters())

def test_a_guard_does_not_change_a_fit_that_goes_well():
    weights = []
    for cbs in [],[DivergenceGuard()]:
        set_seed(42)
        learn = learner()
        with learn.no_bar(), learn.no_logging(): learn.fit(2, 0.05, cbs=cbs)
        weights.append([p.tolist() for p in learn.model.parameters()])
    assert weights[0] == weights[1] and cbs[0].report is None

@pytest.mark.parametrize('kwargs', [dict(factor=1), dict(factor='a'), dict(n_steps=0), dict(beta=1)])
def test_a_guard_checks_its_arguments(kwargs):
    with pytest.raises(ValueError, match=first(kwargs)): DivergenceGuard(**kwargs)

def test_a_report_is_kept_and_can_be_sent(tmp_path):
    class Explode(Callback):
        order = -11
        def after_loss(self):
            if self.training and self.train_iter == 3: self.learn.loss = self.learn.loss*nan
    learn = learner(path=tmp_path, cbs=[Explode(), DivergenceGuard()])
    with pytest.raises(FitDiverged) as e: quiet(learn, 0.05, on_diverge='raise')
    assert learn.divergence_guard.report.step == 3
    with learn.no_bar(), learn.no_logging(): learn.validate(); learn.get_preds()
    assert learn.divergence_guard.report.step == 3  # what looks at the model does not forget it
    e2 = pickle.loads(pickle.dumps(e.value))
    assert str(e2) == str(e.value) and repr(e2.report) == repr(e.value.report)
    learn.remove_cb(Explode)
    quiet(learn, 0.05)
    assert learn.divergence_guard.report is None

def test_a_bad_call_leaves_live_workers_alone():
    learn = learner()
    dl = torch.utils.data.DataLoader(learn.dls.train.dataset, 64, num_workers=1, persistent_workers=True)
    learn.dls = DataLoaders(dl, dl)
    dl._iterator = live = object()
    with pytest.raises(ValueError, match='lrs=-1'): quiet(learn, -1, on_diverge='lengthen')
    assert dl._iterator is live

class Scripted(Callback):
    "Gives the steps scripted losses"
    order = -11
    def __init__(self, f): self.f = f
    def after_loss(self):
        if self.training: self.learn.loss = self.learn.loss*0 + self.f(self.train_iter)

def scripted(f):
    "A Learner whose losses follow the script `f`, with 8 batches in an epoch"
    batch = torch.ones(2,3),tensor([0,1])
    dls = DataLoaders([batch]*8, [batch]*2)
    return Learner(dls, nn.Linear(3,2), CrossEntropyLossFlat(), sgd, cbs=Scripted(f))

@pytest.mark.parametrize('f,step', [
    (lambda i: 2-i/20,                              None),  # crosses 0, and goes on
    (lambda i: 0.02+0.1*math.sin(i),                None),  # about 0
    (lambda i: -5+math.sin(i),                      None),
    (lambda i: -(i//20)/9,                          None),
    (lambda i: 0,                                   None),
    (lambda i: 1/(i+1),                             None),
    (lambda i: -5 if i < 40 else 1.3**(i-40),       70),
    (lambda i: 1-i/20 if i < 30 else 1.3**(i-30),   50),
    (lambda i: -5 if i < 40 else 1e30,              50),
    (lambda i: 1 if i < 40 else 1.3**(i-40),        65)])
def test_losses_below_zero(f, step):
    learn = scripted(f)
    guard = DivergenceGuard()
    quiet(learn, 0., 1, cycle_len=10, cbs=guard)
    assert guard.report is None if step is None else 40 < guard.report.step < step, guard.report
    r = learn.lr_find_val(1e-9, 1e-8, num_it=80, show_plot=False, suggest_funcs=None, trials=False)
    if step is None: assert 'finished' in r.stopped
    else: assert 'diverged' in r.stopped and 30 < len(r.df) < step, r.stopped

class EndsAtOnce(Callback):
    def before_fit(self): raise CancelFitException

@pytest.mark.parametrize('kind', ['fit_clr_beta', 'fit', 'half precision'])
def test_a_callback_may_end_the_fit_before_it_begins(kind, tmp_path):
    learn = learner(path=tmp_path, cbs=EndsAtOnce())
    before = [o.clone() for o in learn.model.parameters()]
    if kind == 'half precision': learn.to_precision('bf16')
    if kind == 'fit':
        with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=CLRBeta())
    else: quiet(learn, on_diverge='lengthen', checkpoint='run', best_save_name='best', lrs=0.1)
    assert all(map(torch.equal, before, learn.model.parameters()))
    learn.remove_cb(EndsAtOnce)
    quiet(learn, 0.1)
    assert len(learn.recorder.hps['lr']) == 8

def test_a_cycle_that_begins_above_its_peak():
    "It runs, as in fastai 0.7, and a warning says so"
    for call in partial(CLRBeta, 0.1), partial(plot_clr_beta, 0.1, use_clr_beta=(0.1,10)):
        with pytest.warns(UserWarning, match='div=0.1 is below 1.*10 times.*div=10 meant'): call()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        CLRBeta(1)
    assert clr_beta_lr(0, 100, div=0.1) == pytest.approx(10)

@pytest.mark.parametrize('first,step', [
    ([2.3, 6, 1700, 4e4, 1e5],       15),
    ([2.3, 1e5, 1e5, 9e4, 5e3, 300], 15),
    ([2.3, 3, 300, 6e3, 1e4, 2.3],   16),   # the count begins again
    ([50, 50, 50, 50, 50],         None),
    ([1e5, 50, 50, 50, 50],        None),   # one bad batch, or a lucky one
    ([0.05, 50, 50, 50, 50],       None),
    ([50, 50, 1e5, 50, 50],        None)])
def test_losses_that_explode_at_once(first, step):
    "Such losses are not the best, so 50 is too much after them"
    guard = DivergenceGuard()
    losses = dict(enumerate(first))
    quiet(scripted(lambda i: losses.get(i, 50)), 0., cycle_len=8, cbs=guard)
    if step is None: assert guard.report is None
    else: assert guard.report.step+1 == step and guard.report.best == pytest.approx(2.3)

def test_a_guard_of_the_users_is_the_guard():
    class Mine(DivergenceGuard): pass
    seen = []
    class See(Callback):
        def before_train(self):
            seen.append([type(o) for o in self.learn.cbs if isinstance(o, DivergenceGuard)])
    for cbs in Mine,Mine(),[Mine,See]:
        quiet(learner(), 0.05, on_diverge='raise', cbs=L(cbs)+L(See()))
        assert seen.pop() == [Mine]
    # of two, the one that ends the fit is heard
    for kw in dict(cbs=DivergenceGuard(1.5, 3)),dict(cbs=[]):
        learn = learner(cbs=[Scripted(lambda i: 1+i), DivergenceGuard(None), DivergenceGuard(2, 2)])
        with pytest.raises(FitDiverged): quiet(learn, 0.05, cycle_len=2, on_diverge='raise', **kw)

def test_a_longer_attempt_begins_where_the_first_did(tmp_path, capsys):
    "The callbacks of the call, too, what they hold, and the best so far"
    class Counts(Callback):
        def __init__(self): self.n,self.seen,self.own = 0,[],SimpleNamespace(n=0)
        def after_epoch(self):
            self.n,self.own.n = self.n+1,self.own.n+1
            self.seen.append(self.epoch)
    class Explodes(Callback):
        "As long as the cycle is short"
        order = -11
        def after_loss(self):
            if self.training and self.n_epoch < 8 and self.epoch == 1: self.learn.loss = self.learn.loss*nan
    class Once(Callback):
        def after_epoch(self): self.learn.remove_cb(self)
    saves,mine = [],Counts()
    score = ValueMetric(lambda: 1. if learn.n_epoch < 8 else learn.epoch/10, 'score')
    learn = learner(path=tmp_path, metrics=score, cbs=[Counts(), Once()])
    learn.save = lambda *args, **kwargs: saves.append((learn.n_epoch, learn.epoch))
    kw = dict(on_diverge='lengthen', lengthen=(2,2), best_save_name='best')
    with learn.no_logging(): learn.fit_clr_beta(0.01, cycle_len=4, cbs=[mine, Explodes()], **kw)
    for o in mine,learn.cbs[-1]: assert (o.n, o.seen, o.own.n) == (8, list(range(8)), 8)
    assert saves == [(4,0), *((8,i) for i in range(8))]
    assert capsys.readouterr().out.count('best will hold') == 1

class ShortFitsExplode(Callback):
    "Stand in for a learning rate that only a fit of `enough` epochs survives"
    order = TrainEvalCallback.order+1
    def __init__(self, enough): self.enough = enough
    def after_pred(self):
        if self.training and self.train_iter == 5 and self.n_epoch < self.enough:
            self.learn.pred = self.pred*math.inf

def seeded(**kwargs):
    set_seed(0, reproducible=True)
    return learner(**kwargs)

def test_a_start_over_is_a_start():
    "It ends like a fit of that length alone"
    a,b = seeded(cbs=ShortFitsExplode(3)),seeded()
    for learn,cycle_len in ((a,2),(b,3)): quiet(learn, 0.01, cycle_len=cycle_len, on_diverge='lengthen')
    assert a.recorder.losses == b.recorder.losses
    assert all(x.equal(y) for x,y in zip(a.model.parameters(), b.model.parameters()))

@pytest.mark.parametrize('cbs', [[], [DivergenceGuard]])
def test_if_all_attempts_diverge_the_learner_is_as_before(cbs):
    learn = seeded(cbs=[ShortFitsExplode(99), *cbs])
    before = [p.clone() for p in learn.model.parameters()]
    with pytest.raises(FitDiverged, match='diverged with cycle_len=2, 3, 5; the Learner is as it was') as e:
        quiet(learn, 0.01, cycle_len=2, on_diverge='lengthen', lengthen=(1.5,2))
    assert learn.opt is None and all(x.equal(y) for x,y in zip(before, learn.model.parameters()))
    assert e.value.report.step == 5 and all(learn.divergence_guard.report.step == 5 for _ in cbs)

def test_raise_and_stop(capsys):
    learn = learner(cbs=ShortFitsExplode(99))
    with pytest.raises(FitDiverged, match='step 5 in epoch 0'): quiet(learn, 0.01, on_diverge='raise')
    assert all(p.isfinite().all() for p in learn.model.parameters())
    quiet(learn, 0.01, on_diverge='stop')
    assert 'Stopped: the loss was nan at step 5 in epoch 0' in capsys.readouterr().out
    assert learn.diverged.step == 5 and learn.diverged.epoch == 0
    learn.remove_cb(ShortFitsExplode)
    quiet(learn, 0.01, on_diverge='stop')
    assert learn.diverged is None

def test_a_best_file_of_an_earlier_run_is_told(tmp_path):
    quiet(learner(path=tmp_path), 0.01, best_save_name='best')
    learn = learner(path=tmp_path, cbs=ShortFitsExplode(99))
    with pytest.warns(UserWarning, match='best was not saved: .*best.pth is from an earlier run'):
        quiet(learn, 0.01, on_diverge='stop', best_save_name='best')

def test_a_schedule_with_a_memory_starts_over_too():
    class Counts(CLRBeta):
        def __init__(self): super().__init__(); self.epochs_seen = []
        def before_epoch(self): self.epochs_seen.append(self.epoch)
    schedule = Counts()
    quiet(learner(cbs=ShortFitsExplode(3)), 0.01, cycle_len=2, use_clr_beta=schedule, on_diverge='lengthen')
    assert schedule.epochs_seen == [0,1,2]

# Callbacks that act, by what they handle or by what they are made from

class Regularises(HookCallback):
    def hook(self, m, i, o): return o
    def after_loss(self): pass

class HooksOnly(HookCallback):
    def hook(self, m, i, o): return o*2

class Freezes(Callback):
    def before_train(self): pass
    def after_epoch(self): pass

class Acts(SaveModelCallback):
    def after_backward(self): pass

class BarAndHooks(ProgressCallback, HookCallback): pass

class ActingGuard(DivergenceGuard):
    def after_backward(self): pass

Stranger = type('ActivationStats', (Callback,), {'after_pred': lambda self: None})

acting = (BarAndHooks, ActingGuard, Stranger, Recorder, TrainEvalCallback, Regularises, HooksOnly, Freezes,
          Acts, HookCallback, MixUp, GradientClip, BnFreeze, Callback)

# Callbacks that only observe

class Logs(Callback):
    def before_fit(self): pass
    def after_epoch(self): pass

class MySave(SaveModelCallback):
    def after_epoch(self): super().after_epoch()

class LogsMore(CSVLogger):
    def after_batch(self): pass
    def before_step(self): pass

class Bar(ProgressCallback): pass
class Quiet(DivergenceGuard): pass

observing = (Logs, MySave, LogsMore, Bar, Quiet, ActivationStats, CSVLogger, EarlyStoppingCallback,
             DivergenceGuard, ProgressCallback)

def test_which_callbacks_only_observe():
    assert [o.__name__ for o in (*acting, *observing) if observes(o())] == [o.__name__ for o in observing]
