"""The logs of a protocol as three tables: `runs.csv`, `epochs.csv.gz` and `range_steps.csv.gz`.

    python experiments/log_tables.py    # merge the working files of the laboratory into its tables

The laboratory keeps two working files for each run: its rows in a CSV, its configuration in a JSON. This
command adds them to the tables, where a run is known by the hash of its configuration. If both have a run,
the one with more rows counts, so an unfinished run never replaces a finished one. Merging the same files
again changes nothing.
"""
from pathlib import Path
import hashlib, io, json, os
import pandas as pd
from fastcore.script import call_parse

here = Path(__file__).parent
committed,working_files = here/'results/protocol2', here/'working/protocol2'

# Recorded beside the configuration: package versions at each start, and what protocol 1 noted afterwards
beside = 'filled_in_later','versions','sittings'

def hash_of(config):
    "Return the hash by which the run with this configuration is known."
    settings = {k:v for k,v in config.items() if k not in beside}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]

# A value of a configuration as the text of a cell. An empty cell: the configuration has no such key

def from_cell(text):
    "Return the value that `to_cell` wrote."
    try: return json.loads(text)
    except ValueError: return text

def to_cell(value):
    "Return `value` as JSON. A string stands without quotes, unless JSON would read it as something else."
    if isinstance(value, str) and value and from_cell(value) == value: return value
    return json.dumps(value, ensure_ascii=False)

# Tables are read as text, so that no figure changes on its way from a log into a table and back

def read_text(file):
    "Return the table in `file` with each cell as text, or an empty one if there is no file."
    return pd.read_csv(file, dtype=str, keep_default_na=False) if file.exists() else pd.DataFrame()

def write_text(file, df):
    "Write `df` as a CSV whose bytes depend on nothing but its cells."
    tmp = file.with_suffix('.tmp')
    compression = dict(method='gzip', mtime=0) if file.suffix == '.gz' else None
    df.to_csv(tmp, index=False, lineterminator='\n', compression=compression)
    os.replace(tmp, file)

class LogTables:
    "The tables in `folder`: `configs`, `names` and `rows` of its runs, by hash"
    def __init__(self, folder):
        self.folder = Path(folder)
        self.configs,self.names,self.rows = {},{},{}
        for row in read_text(self.folder/'runs.csv').to_dict('records'):
            key,name = row.pop('hash'),row.pop('name')
            self.names[key] = name
            self.configs[key] = {k:from_cell(v) for k,v in row.items() if v}
        for table in ('epochs', 'range_steps'): self._read_rows(table)

    def _read_rows(self, table):
        df = read_text(self.folder/f'{table}.csv.gz')
        if df.empty: return
        for key,rows in df.groupby('hash', sort=False):
            rows = rows.drop(columns='hash').reset_index(drop=True)
            self.rows[key] = rows.loc[:, (rows != '').any()]  # without the columns of other runs

    def df(self, key):
        "Return the log of the run with this hash, or None if it is not in the tables."
        if key not in self.rows: return None
        return pd.read_csv(io.StringIO(self.rows[key].to_csv(index=False)))

    def add(self, name, config, rows):
        "Add a run and return True, unless the tables have at least as many rows of it."
        key = hash_of(config)
        if len(rows) <= len(self.rows.get(key, ())): return False
        self.names[key],self.configs[key],self.rows[key] = name.removesuffix(f'_{key}'),config,rows
        return True

    def write(self):
        "Write the tables, sorted by the names of the runs."
        self.folder.mkdir(parents=True, exist_ok=True)
        keys = sorted(self.configs, key=lambda key: (self.names[key], key))
        runs = [dict(hash=key, name=self.names[key]) | {k:to_cell(v) for k,v in self.configs[key].items()}
                for key in keys]
        df = pd.DataFrame(runs).fillna('')
        last = [o for o in beside if o in df]
        write_text(self.folder/'runs.csv', df[[*df.columns.drop(last), *last]])
        trained = {key:'epoch' in self.rows[key] for key in keys}
        self._write_rows('epochs', [key for key in keys if trained[key]])
        self._write_rows('range_steps', [key for key in keys if not trained[key]])

    def _write_rows(self, table, keys):
        if not keys: return
        df = pd.concat({key:self.rows[key] for key in keys}, names=['hash']).reset_index('hash').fillna('')
        write_text(self.folder/f'{table}.csv.gz', df)

def merge(working, folder):
    "Add the working files in `working` to the tables in `folder`. Return the names of the runs added."
    tables,added = LogTables(folder),[]
    for file in sorted(Path(working).glob('*.json')):
        log = file.with_suffix('.csv')
        if not log.exists(): continue  # it was stopped before its first epoch
        config = json.loads(file.read_text(encoding='utf-8'))
        if tables.add(file.stem, config, read_text(log)): added.append(file.stem)
    if added: tables.write()
    return added

@call_parse
def main(
    working:str=None, # Folder of the working files. None: working/protocol2 beside this script
    tables:str=None,  # Folder of the tables. None: results/protocol2 beside this script
):
    "Merge working files into the tables."
    added = merge(working or working_files, tables or committed)
    for name in added: print(name)
    print(f'{len(added)} runs were added to {tables or committed}.')
