"""Build the site: `python docs/build.py [outdir]`. Every notebook is a page, and the index the front. This
needs no network and no quarto."""
import gc, re, shutil, sys, tempfile
from dataclasses import is_dataclass
from importlib import import_module
from inspect import cleandoc, getsource, isclass, isfunction, signature, unwrap
from itertools import chain, groupby
from pathlib import Path
from types import SimpleNamespace
import nbformat, yaml
from bs4 import BeautifulSoup, SoupStrainer
from fastai.learner import Learner
from fastcore.docments import MarkdownRenderer, docments
from fastcore.xtras import working_directory
from markdownify import markdownify
from nbdev.config import nbpath2html
from nbdev.doclinks import NbdevLookup
from nbdev.serve import proc_nbs
from fastai_clrbeta._modidx import d as syms
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from sphinx.cmd.build import build_main
from sphinx.util.inspect import stringify_signature

root = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root/'docs'))
from links import addresses, colab, with_pip

urls = addresses(root)
# quarto's words and myst-nb's
tags = {'echo: false':'remove-input', 'output: false':'remove-output', 'code-fold: true':'hide-input'}
# patched ones, which `show_doc` takes for methods
properties = ['Learner.lr_find_result', 'Learner.lr_find_sweep_result']
# classes of which one wants to know what they hold, not how they are made
results = 'LRFind LRSweep FitDiverged Sched'.split()

def page_of(f): return Path(nbpath2html(Path(f))).stem

def linked(text, ext):
    "Let links to notebooks, by which quarto finds a page, lead to pages."
    text = text.replace('(../CHANGELOG.md)', f'(changelog.{ext})')
    return re.sub(r'(\]\()(?:\d\d_)?([a-z]\w*)\.ipynb', rf'\1\2.{ext}', text)

number = r'[-−+]?[\d.,]+(e[-+]?\d+)?( ± [\d.]+)?[ %×]*'
numbers = rf'{number}(, {number})*|–|NaN'

def aligned(html):
    "Align the columns of tables that have only numbers to the right."
    page = BeautifulSoup(html, 'html.parser')
    for table in page('table'):
        # from the right, because names at the left may span several rows
        rows = [row(['th','td'])[::-1] for row in table.select('thead tr:first-child, tbody tr')]
        for name,*column in zip(*rows):
            if not all(o.name == 'td' and re.fullmatch(numbers, o.text) for o in column): continue
            for o in name,*column: o['class'] = [*o.get('class', ()), 'num']
    return str(page)

def process(tmp):
    """Return what `nbdev-docs` hands to quarto, with Sphinx's directives as docs of names. All is in `tmp`,
    so that builds can't meet."""
    shutil.copytree(root/'nbs', tmp/'nbs')
    ours = '[tool.nbdev]\nrenderer = "build.Renderer"\nskip_procs = "add_links"\n'
    settings = (root/'pyproject.toml').read_text(encoding='utf-8').replace('[tool.nbdev]\n', ours)
    (tmp/'pyproject.toml').write_text(settings, encoding='utf-8')
    sys.modules['build'] = sys.modules[__name__]  # and not a package of that name
    with working_directory(tmp):  # nbdev reads the settings of the folder where it runs
        return proc_nbs('nbs', n_workers=0)

# Docs of names
class Renderer(MarkdownRenderer):
    def _repr_markdown_(self):
        # a decorator can hide the class of a method, also if a function has the same name
        method = getattr(Learner, self.nm, None)
        is_hidden = method is not self.sym and unwrap(method) is self.sym
        name = self.nm if NbdevLookup()[self.nm] and not is_hidden else f'Learner.{self.nm}'
        if not isclass(self.sym):
            kind = 'property' if name in properties else 'method' if '.' in name else 'function'
            return directive(kind, name, self.sym)
        members = [directive('method' if isfunction(o) else 'property', k, o) for k,o in documented(self.sym)]
        return directive('exception' if issubclass(self.sym, Exception) else 'class', name, self.sym, members)

def is_named_tuple(sym): return hasattr(sym, '_fields')

def exported(sym):
    """Return the class in the module that was exported from `sym` of a notebook, if it has fields: only a
    file has their comments."""
    for module,names in syms['syms'].items() if is_dataclass(sym) or is_named_tuple(sym) else ():
        if f'{module}.{sym.__qualname__}' in names: return getattr(import_module(module), sym.__qualname__)
    return sym

def documented(cls):
    "Return the public methods and properties that `cls` defines and documents, by name."
    own = [(k, o) for k,o in vars(cls).items() if k[0] != '_' and o.__doc__]
    return [(k, o) for k,o in own if isinstance(o, property) or isfunction(o)]

def directive(kind, name, sym, members=()):
    "Return the docs of `sym`, with its parameters as a table, and those of its `members`."
    dm = {} if kind == 'property' else comments_of(exported(sym))
    inherits = isclass(sym) and not vars(sym).keys() & {'__init__','__new__'}
    if inherits and not any(o.docment for o in dm.values()): dm = {}  # those of fastai
    is_result = name in results or is_named_tuple(sym)
    head = 'Attribute' if is_result else 'Option and default' if name == 'clrbeta' else 'Parameter'
    doc,fence = prose(cleandoc(sym.__doc__ or '')),':::::' if members else '::::'
    call = sig(sym) if dm and head == 'Parameter' else ''
    head_line = f'{fence}{{py:{kind}}} {name}{call}\n'
    return '\n'.join([head_line, doc, '', *table(name, head, dm), '', *members, fence, ''])

def comments_of(sym):
    "Return the comments on parameters, or on the fields of a named tuple, which `docments` can't read."
    if not is_named_tuple(sym): return docments(sym, full=True)
    fields = re.findall(r'^    (\w+):[^#\n]+# *(.+)$', getsource(sym), re.M)
    return {k:SimpleNamespace(docment=v) for k,v in fields}

def table(name, head, dm):
    "Return the lines of the table of the documented parameters."
    rows = [(f'`{word(name, k, o)}`', o.docment) for k,o in dm.items() if k not in ('self','return')]
    rows.append(('returns', getattr(dm.get('return'), 'docment', None)))
    rows = [f'| {k} | {escape(v.replace(chr(10), " "))} |' for k,v in rows if v]
    return [f'{{.params}}\n| {head} | Meaning |\n|---|---|', *rows] if rows else []

def word(name, k, o):
    "Return a parameter as it is written: that of the command as an option, with its default."
    if name != 'clrbeta': return k
    option = '--' + k.replace('_', '-')
    return option if o.default is False else f'{option} {o.default}'

def escape(text):
    parts = enumerate(re.split('(`[^`]*`)', text))
    return ''.join(o if i%2 else re.sub(r'([\\<*_|])', r'\\\1', o) for i,o in parts)

def prose(text):
    "Escape all but tables."
    groups = groupby(text.split('\n'), lambda o: o.startswith('|'))
    return '\n'.join('\n'.join(o) if is_table else escape('\n'.join(o)) for is_table,o in groups)

def sig(sym):
    s = signature(sym.__init__ if '__init__' in getattr(sym, '__dict__', ()) else sym, eval_str=True)
    s = s.replace(parameters=[o for k,o in s.parameters.items() if k != 'self'])
    text = stringify_signature(s, unqualified_typehints=True)
    return re.sub(r'<function ([\w.]+\.)?<?(\w+)>?(?: at 0x\w+)?>|__main__\.', r'\2', text)

# Pages
def is_plain(output): return [*output.get('data', ())] == ['text/plain']

def as_stream(output):
    "Return an output that is only text as one that is printed."
    return new_output('stream', text=output.data['text/plain']) if is_plain(output) else output

def front_matter(nb):
    "Return title and description of a page: `nbdev-docs` leaves them in the first cell."
    raw = next(o for o in nb.cells if o.cell_type == 'raw')
    fm = yaml.safe_load(raw.source.strip().strip('-'))
    return fm['title'],fm.get('description', '')

def head(page, file, title, description):
    "Return the cell that a page begins with."
    is_module = (root/f'fastai_clrbeta/{page}.py').exists()
    module = f'```{{py:currentmodule}} fastai_clrbeta.{page}\n```\n\n' if is_module else ''
    doors = [f'{{download}}`Download this notebook <../nbs/{file}>`']
    if address := colab(urls, file): doors.append(f'[Open in Colab]({address})')
    doors = ' · '.join(doors)
    return new_markdown_cell(f'{module}# {title}\n\n{{.lead}}\n{description}\n\n{{.download}}\n{doors}')

def shown(c):
    "Return a cell as it is on the page, or None."
    if 'show_doc(' in c.source: return new_markdown_cell(c.outputs[0].data['text/markdown'])
    opts = re.findall(r'^#\| *(.+?) *$', c.source, re.M)
    if c.cell_type == 'raw' or c.source.startswith('<!-- WARNING') or 'include: false' in opts: return
    c.source = re.sub(r'^#\|.*\n?', '', c.source, flags=re.M)
    if c.cell_type == 'code': translate(c, opts)
    else: c.source = with_pip(urls, linked(c.source, 'html'))
    return c

def translate(c, opts):
    "Say in myst-nb's words what `opts` say of a cell of code and its figure."
    fig = yaml.safe_load('\n'.join(o for o in opts if o.startswith(('fig-','classes')))) or {}
    c.metadata = dict(tags=[tags[o] for o in opts if o in tags])
    if fig:
        image = dict(alt=fig['fig-alt'], classes=fig.get('classes', 'chart'))
        c.metadata['mystnb'] = dict(figure=dict(caption=fig['fig-cap']), image=image)
    c.outputs = [as_stream(o) for o in c.outputs]  # or the text would have the caption, too
    for o in (o.data for o in c.outputs if 'data' in o):
        if 'text/html' in o: o['text/html'] = aligned(o['text/html'])
        if 'text/markdown' in o: o['text/markdown'] = linked(o['text/markdown'], 'html')

def apart(c):
    "Return a cell with a table or text in HTML and a figure as two, or myst-nb gives the caption to both."
    texts = [o for o in c.get('outputs', ()) if 'image/png' not in o.get('data', {})]
    is_html = any('text/html' in o.get('data', {}) for o in texts)
    if 'mystnb' not in c.metadata or not is_html: return [c]
    code = new_code_cell(c.source, outputs=texts, metadata=dict(tags=c.metadata.tags))
    c.outputs = [o for o in c.outputs if o not in texts]
    c.metadata.tags = ['remove-input']
    return [code,c]

def sections():
    "Return the pages of each section, in the order of `nbs/sidebar.yml`."
    sidebar = yaml.safe_load((root/'nbs/sidebar.yml').read_text(encoding='utf-8'))['website']['sidebar']
    return {o['section']:[page_of(f) for f in o['contents']] for o in sidebar['contents']}

def toctree():
    "Return the sidebar: the pages, the changelog, and the addresses that there are."
    tree = sections() | {'Start':['Home <self>']}
    tree['More'] += ['changelog.md', *(f'{k} <{v}>' for k,v in urls.items())]
    parts = [[f'```{{toctree}}\n:hidden:\n:caption: {k}\n', *pages, '```\n'] for k,pages in tree.items()]
    return '\n'.join(sum(parts, []))

def write_pages(src, dest):
    "Write the notebooks of `src` to `dest` for myst-nb. Return titles and descriptions of all pages."
    pages = {}
    for file in src.glob('*.ipynb'):
        nb,page = nbformat.read(file, 4),page_of(file)
        pages[page] = front_matter(nb)
        cells = filter(None, map(shown, nb.cells))
        nb.cells = [head(page, file.name, *pages[page]), *chain.from_iterable(map(apart, cells))]
        language = dict(name='python', pygments_lexer='python')
        nb.metadata = dict(kernelspec=nb.metadata.kernelspec, language_info=language)
        if page == 'index': nb.cells.append(new_markdown_cell(toctree()))
        nbformat.write(nb, dest/f'{page}.ipynb')
    shutil.copy(root/'CHANGELOG.md', dest/'changelog.md')
    return pages

# The site
unread = '.headerlink, .viewcode-link, .download, summary, style, script'

def twin(html):
    "Return a page as plain Markdown."
    page = BeautifulSoup(html, 'html.parser', parse_only=SoupStrainer('article')).article
    for o in page.select(unread): o.decompose()
    for o in page.select('dl, dd'): o.unwrap()
    for o in page.select('dt.sig'): o.name,o.string = 'h3',f"`{' '.join(o.get_text().split())}`"
    language = lambda o: re.search('highlight-(python|sh)|$', str(o.parent.parent.get('class')))[1]
    as_is = dict(escape_misc=False, escape_underscores=False, escape_asterisks=False)
    text = str(page).replace('\xa0', ' ')
    return markdownify(text, heading_style='ATX', code_language_callback=language, **as_is).strip()+'\n'

def write_llms(out, pages):
    "Write the list of the pages for language models, after what `nbs/llms.txt` says of the package."
    intro = linked((root/'nbs/llms.txt').read_text(encoding='utf-8').split('## Modules')[0], 'html.md')
    lines = [re.sub('<!--.*-->', '', intro).strip()]
    for section,names in sections().items():
        lines.append(f'\n## {section}\n')
        lines += [f'- [{pages[o][0]}]({o}.html.md): {pages[o][1]}' for o in names]
    (out/'llms.txt').write_text('\n'.join(lines)+'\n', encoding='utf-8')

def write_twins(out, pages):
    for o in pages:
        html = (out/f'{o}.html').read_text(encoding='utf-8')
        (out/f'{o}.html.md').write_text(twin(html), encoding='utf-8')

def main(out='_docs'):
    "Make the site in the folder `out`, and replace what it holds"
    out = Path(out).absolute()
    is_site = (out/'searchindex.js').exists()
    if out.exists() and any(out.iterdir()) and not is_site: return f'{out} holds something else than a site.'
    with tempfile.TemporaryDirectory() as tmp:
        src,html = Path(tmp)/'src',Path(tmp)/'html'
        src.mkdir()
        pages = write_pages(process(Path(tmp)), src)
        strict = ['-n', '-W', '--keep-going', '-q']
        if res := build_main([*strict, '-c', str(root/'docs'), str(src), str(html)]): return res
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(html, out, ignore=shutil.ignore_patterns('.doctrees', '.buildinfo', '_sources'))
    write_twins(out, pages)
    write_llms(out, pages)

if __name__ == '__main__':
    code = main(*sys.argv[1:])
    gc.freeze()  # without this, each shell of nbdev searches for garbage at exit
    sys.exit(code)
