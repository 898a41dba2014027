"Make README.md, and the figure in it, from nbs/index.ipynb: `python .ci/readme.py`"
from pathlib import Path
import re, sys
import nbformat
from nbconvert import MarkdownExporter
from traitlets.config import Config

root = Path(__file__).resolve().parent.parent
sys.path.append(str(root/'docs'))
from links import addresses, with_pip

figures = 'nbs/index_files'

def readme():
    "The text of README.md, and its figures by name"
    nb = nbformat.read(root/'nbs/index.ipynb', 4)
    nb.metadata.language_info = {'name':'python'}
    nb.cells = [o for o in nb.cells if not o.source.startswith('#| hide')]
    alts = iter(re.findall(r'^#\| fig-alt: "(.*)"', '\n'.join(o.source for o in nb.cells), re.M))
    for o in nb.cells:
        if '#| echo: false' in o.source: o.metadata['tags'] = ['no-source']
        o.source = re.sub(r'^#\|.*\n', '', o.source, flags=re.M)
    resources = {'output_files_dir':figures, 'unique_key':'index'}
    hide = Config(TagRemovePreprocessor=dict(enabled=True, remove_input_tags={'no-source'}))
    text,res = MarkdownExporter(config=hide).from_notebook_node(nb, resources=resources)
    text = re.sub(r'!\[png\]', lambda _: f'![{next(alts)}]', text)
    text = with_pip(addresses(root), text)
    return re.sub(r'\]\((\w+\.ipynb)', r'](nbs/\1', text).strip()+'\n', res['outputs']

if __name__ == '__main__':
    text,figs = readme()
    (root/'README.md').write_text(text, encoding='utf-8')
    (root/figures).mkdir(exist_ok=True)
    for old in (root/figures).iterdir(): old.unlink()
    for name,data in figs.items(): (root/name).write_bytes(data)
