"The peak on Learners of fastai's applications: all fits take it, and the test leaves no trace"
import pytest
from fastai.collab import *
from fastai.tabular.all import *
from fastai.text.all import *
from fastai.vision.all import *
from fastai_clrbeta.all import *

# Learners, each of a kind that fastai users make

def tiny(pretrained=False):
    "An architecture for `vision_learner`, with pooling and a head that it cuts off"
    body = ConvLayer(3, 8, stride=2), ConvLayer(8, 8, stride=2)
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))

def vision(tmp_path):
    dls = digits_dls(bs=32, size=16, seed=0)
    dls.train.n = 256
    head = dict(n_out=10, lin_ftrs=[16])
    return vision_learner(dls, tiny, pretrained=False, metrics=accuracy, path=tmp_path, **head)

def frozen(tmp_path):
    learn = vision(tmp_path)
    learn.freeze()
    return learn

def unfrozen(tmp_path):
    "After a first fit of the head, with discriminative rates"
    learn = frozen(tmp_path)
    with quiet(learn): learn.fit_one_cycle(1, 0.01)
    learn.unfreeze()
    learn.lr = slice(1e-4, 1e-2)
    return learn

def tabular(tmp_path):
    rng = np.random.default_rng(0)
    df = pd.DataFrame(rng.normal(size=(300,3)), columns=list('abc')).astype('float32')
    df['k'] = rng.choice(['x','y','z'], 300)
    df['target'] = np.where(df.a + (df.k == 'x') > 0, 'high', 'low')
    dls = TabularDataLoaders.from_df(
        df, tmp_path, [Categorify,Normalize], cat_names='k', cont_names=list('abc'), y_names='target',
        y_block=CategoryBlock(), valid_idx=list(range(60)), bs=32)
    return tabular_learner(dls, layers=[16], metrics=accuracy, path=tmp_path)

def collab(tmp_path):
    rng = np.random.default_rng(0)
    ratings = pd.DataFrame(dict(user=rng.integers(20, size=300), item=rng.integers(30, size=300)))
    ratings['rating'] = ((ratings.user + ratings.item)%5 + 1.).astype('float32')
    dls = CollabDataLoaders.from_df(ratings, seed=0, bs=32, path=tmp_path)
    return collab_learner(dls, n_factors=5, y_range=(0,5.5), path=tmp_path)

def text(tmp_path):
    good,bad = 'the film was good and long','bad acting in a very bad plot'
    df = pd.DataFrame(dict(text=[good,bad]*40, label=[1,0]*40))
    columns = dict(text_col='text', label_col='label')
    dls = TextDataLoaders.from_df(df, tmp_path, **columns, bs=8, seed=0, num_workers=0)
    small = dict(config=awd_lstm_clas_config | dict(emb_sz=8, n_hid=8), pretrained=False)
    return text_classifier_learner(dls, AWD_LSTM, **small, metrics=accuracy, path=tmp_path)

# What all can do

@contextmanager
def quiet(learn):
    with learn.no_bar(), learn.no_logging(): yield

def weights(learn): return {k:v.clone() for k,v in learn.model.state_dict().items()}

def same(a, b): return all(torch.equal(v, b[k]) for k,v in a.items())

def trains(learn, fit, highest):
    "Check that the call `fit()` changes the weights, to numbers, and reaches the rate `highest`."
    before = weights(learn)
    with quiet(learn): fit()
    assert not same(before, weights(learn)) and not any(o.isnan().any() for o in weights(learn).values())
    assert max(learn.recorder.lrs) == pytest.approx(highest, rel=0.15)  # few steps may leave out the peak

makers = vision,frozen,unfrozen,tabular,collab,text

@pytest.mark.parametrize('make', makers, ids=lambda o: o.__name__)
def test_all_fits_take_the_peak(make, tmp_path, short):
    set_seed(0)
    learn = make(tmp_path)
    before,is_frozen = weights(learn),[not p.requires_grad for p in learn.model.parameters()]
    with quiet(learn): found = learn.lr_find_val(num_it=30, show_plot=False, trials='thorough')
    assert same(before, weights(learn))
    assert is_frozen == [not p.requires_grad for p in learn.model.parameters()]
    assert found.usual == 0.03 and len(found.trials) >= 3 and np.isfinite(found.trials.valid_loss).any()
    assert found.band[0] < found.peak < found.band[1] and len(found.plot()) == len(found.plot()) >= 3

    trains(learn, lambda: learn.fit_clr_beta(found, cycle_len=2), found.peak)
    trains(learn, lambda: learn.fit_clr_beta(slice(found.peak)), found.peak)
    trains(learn, lambda: learn.fit_one_cycle(1, found.peak), found.peak)
    # which trains the head first, and then all groups at half the rate
    trains(learn, lambda: learn.fine_tune(1, found.peak), found.peak/2)
    assert max(learn.plot_clr_beta(found)[0].lines[-1].get_ydata()) == pytest.approx(found.peak, rel=0.15)
