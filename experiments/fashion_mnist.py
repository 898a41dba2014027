"""Fashion-MNIST, whole: a network of two convolutions, one cycle at the peak of the range test.

    python experiments/fashion_mnist.py --data FOLDER   # the folder with the four .gz files

On Debian, `apt-get install dataset-fashion-mnist` brings them to /usr/share/datasets/fashion-mnist. Its
README lists accuracies that people have reported, without epochs: 92.5 % for two convolutions with fewer than
100,000 parameters, and 93.4 % for two convolutions with BatchNorm. The log is
`experiments/results/fashion_mnist.csv`.
"""
from fastai_clrbeta.all import *
from fastcore.script import call_parse
import gzip

log = Path(__file__).parent/'results'/'fashion_mnist.csv'

def images(folder, part):
    "Return the images of a part, `train` or `t10k`, as floats in (n, 1, 28, 28), and their classes."
    def read(kind, skip):
        raw = gzip.decompress((folder/f'{part}-{kind}-ubyte.gz').read_bytes())
        return torch.frombuffer(bytearray(raw[skip:]), dtype=torch.uint8)
    x = read('images-idx3', 16).view(-1, 1, 28, 28).float()/255
    return (x-0.286)/0.353, read('labels-idx1', 8).long()

def loaders(folder, bs):
    "Return loaders that take whole batches from memory."
    def loader(x, y, bs, **kwargs):
        return DataLoader(range(len(x)), bs, create_batch=lambda i: (x[i], y[i]), **kwargs)
    train = loader(*images(folder, 'train'), bs, shuffle=True, drop_last=True)
    return DataLoaders(train, loader(*images(folder, 't10k'), 500))

def network():
    "Return two convolutions with BatchNorm and pooling, and one linear layer: 50,282 parameters."
    def layer(a, b): return [ConvLayer(a, b, 3), nn.MaxPool2d(2)]
    return nn.Sequential(*layer(1, 32), *layer(32, 64), nn.Flatten(), nn.Linear(64*7*7, 10))

@call_parse
def main(
    data:str='/usr/share/datasets/fashion-mnist', # Folder of the four .gz files
    cycle_len:int=10, # Epochs
    bs:int=128,       # Batch size
    n_seeds:int=3,    # Runs
    precision:str='bf16', # As for `Learner.to_precision`
):
    "Train, and add a row to the log for each run."
    for seed in range(n_seeds):
        set_seed(seed, reproducible=True)
        learn = Learner(loaders(Path(data), bs), network(), opt_func=sgd, metrics=accuracy,
                        loss_func=CrossEntropyLossFlat(), cbs=ChannelsLast()).to_precision(precision)
        with learn.no_bar(), learn.no_logging():
            found = learn.lr_find_val(show_plot=False)
            learn.fit_clr_beta(found, cycle_len=cycle_len, wd=5e-4)
        row = dict(seed=seed, epochs=cycle_len, bs=bs, precision=precision,
                   parameters=total_params(learn.model)[0], peak=found.peak,
                   accuracy=learn.recorder.values[-1][2], why=found.why)
        print(row)
        with log.open('a', encoding='utf-8') as f:
            pd.DataFrame([row]).to_csv(f, index=False, header=f.tell() == 0, float_format='%.5g')
