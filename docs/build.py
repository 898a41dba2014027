"Build the site: `python docs/build.py [outdir]`. Every notebook is a page, and the index the front; needs no network and no quarto"
import base64, re, shutil, sys, tempfile
from inspect import cleandoc, isclass, isfunction, signature
from itertools import groupby
from pathlib import Path
import nbformat, yaml
from bs4 import BeautifulSoup
from fastcore.docments import MarkdownRenderer, docments
from fastcore.xtras import working_directory
from markdownify import markdownify
from nbdev.config import nbpath2html
from nbdev.doclinks import NbdevLookup
from nbdev.serve import proc_nbs
from nbformat.v4 import new_markdown_cell, new_output
from sphinx.cmd.build import build_main
from sphinx.util.inspect import stringify_signature

root = Path(__file__).resolve().parent.parent
tags = {'echo: false':'remove-input', 'output: false':'remove-output', 'code-fold: true':'hide-input'} # quarto's words and myst-nb's
properties = ['Learner.lr_find_result', 'Learner.lr_find_sweep_result'] # patched ones, which `show_doc` takes for methods
results = 'LRFind LRSweep Divergence FitDiverged Sched'.split() # classes of which one wants to know what they hold, not how they are made

def page_of(f): return Path(nbpath2html(Path(f))).stem
def linked(text, ext): return re.sub(r'(\]\()(?:\d\d_)?([a-z]\w*)\.ipynb', rf'\1\2.{ext}', text) # quarto finds a page by its notebook
def aligned(html): # numbers to the right
    return re.sub(r'<td[^>]*>(?=([-−+]?[\d.,]+(e[-+]?\d+)?( ± [\d.]+| \([\d.]+ to [\d.]+\))?[ %×]*|–)</td>)', '<td class="num">', html)
def cards(os): # of title, link, text and options
    os = ['\n'.join([f':::{{grid-item-card}} [{title}]({link})', f':link: {link}', *opts, f'\n{text}\n:::']) for title,link,text,*opts in os]
    return '\n'.join(['::::{grid} 1 2 2 3\n:gutter: 3\n', *os, '::::'])
def opened(text): # doors, in a list on their pages, as cards
    doors = re.findall(r'^- \[(.+)\]\((.+?)\) (.+)', text, re.M)
    return text.split('- ')[0] + cards(doors) if doors else text

def process(tmp):
    "What `nbdev-docs` hands to quarto, with Sphinx's directives as docs of names. All in `tmp`, so that builds can't meet"
    shutil.copytree(root/'nbs', tmp/'nbs')
    ours = '[tool.nbdev]\nrenderer = "build.Renderer"\nskip_procs = "add_links"\n'
    (tmp/'pyproject.toml').write_text((root/'pyproject.toml').read_text(encoding='utf-8').replace('[tool.nbdev]\n', ours), encoding='utf-8')
    sys.modules['build'] = sys.modules[__name__] # and not a package of that name
    with working_directory(tmp): return proc_nbs('nbs', n_workers=0) # it looks for its settings where it runs

class Renderer(MarkdownRenderer):
    def _repr_markdown_(self):
        name = self.nm if NbdevLookup()[self.nm] else f'Learner.{self.nm}' # a decorator can hide whose method it is
        if not isclass(self.sym): return directive('property' if name in properties else 'method' if '.' in name else 'function', name, self.sym)
        own = [(k, o) for k,o in vars(self.sym).items() if k[0] != '_' and o.__doc__ and (isinstance(o, property) or isfunction(o))]
        members = [directive('method' if isfunction(o) else 'property', k, o) for k,o in own]
        return directive('exception' if issubclass(self.sym, Exception) else 'class', name, self.sym, members)

def directive(kind, name, sym, members=()):
    "The docs of `sym`, with its parameters as a table, and those of its `members`"
    plain_error = kind == 'exception' and '__init__' not in vars(sym) # a message is all that it takes
    dm = {} if kind == 'property' or plain_error else docments(sym, full=True)
    head = 'Attribute' if name in results else 'Option and default' if name == 'clrbeta' else 'Parameter'
    option = lambda k,o: '--' + k.replace('_', '-') + ('' if o.default is False else f' {o.default}')
    word = option if name == 'clrbeta' else lambda k,o: k
    rows = [(f'`{word(k, o)}`', o.docment) for k,o in dm.items() if k not in ('self','return')]
    rows = [(k, escape(v.replace('\n', ' '))) for k,v in [*rows, ('returns', getattr(dm.get('return'), 'docment', None))] if v]
    table = [f'{{.params}}\n| {head} | Meaning |\n|---|---|', *(f'| {k} | {v} |' for k,v in rows)] if rows else []
    doc,fence = prose(cleandoc(sym.__doc__ or '')),':::::' if members else '::::'
    return '\n'.join([f'{fence}{{py:{kind}}} {name}{sig(sym) if dm and head=="Parameter" else ""}\n', doc, '', *table, '', *members, fence, ''])
def escape(text): return ''.join(o if i%2 else re.sub(r'([\\<*_|])', r'\\\1', o) for i,o in enumerate(re.split('(`[^`]*`)', text)))
def prose(text): # tables stay as they are
    return '\n'.join('\n'.join(o) if is_table else escape('\n'.join(o)) for is_table,o in groupby(text.split('\n'), lambda o: o.startswith('|')))
def sig(sym):
    s = signature(sym.__init__ if '__init__' in getattr(sym, '__dict__', ()) else sym, eval_str=True)
    s = s.replace(parameters=[o for k,o in s.parameters.items() if k != 'self'])
    return re.sub(r'<function ([\w.]+\.)?<?(\w+)>?(?: at 0x\w+)?>|__main__\.', r'\2', stringify_signature(s, unqualified_typehints=True))

class Bridge: # from notebooks for quarto to notebooks for myst-nb
    def __init__(self, src, dest): self.src,self.dest,self.names,self.figures,self.pages = src,dest,{},[],{}
    def cell(self, c, page, file):
        if c.cell_type == 'raw':
            fm = yaml.safe_load(c.source.strip().strip('-'))
            self.pages[page] = fm['title'],fm.get('description', '')
            mod = f'```{{py:currentmodule}} fastai_clrbeta.{page}\n```\n\n' if (root/f'fastai_clrbeta/{page}.py').exists() else ''
            lead,at = f"{mod}# {fm['title']}\n\n{{.lead}}\n{self.pages[page][1]}",f'{{download}}`Download this notebook <../nbs/{file}>`'
            return new_markdown_cell(f'{lead}\n\n{{.download}}\n{at}')
        if 'show_doc(' in c.source:
            md = c.outputs[0].data['text/markdown']
            name,doc = re.match(r':+\{.+?\} ([\w.]+).*\n\n(.*(?:\n.+)*)', md).groups()
            self.names.setdefault(page, []).append((name, doc.replace('\n', ' ').split('. ')[0].rstrip('.')))
            return new_markdown_cell(md)
        opts = re.findall(r'^#\| *(.+?) *$', c.source, re.M)
        if c.source.startswith('<!-- WARNING') or 'include: false' in opts: return
        c.source = re.sub(r'^#\|.*\n?', '', c.source, flags=re.M)
        if c.cell_type == 'code':
            fig = {'classes':'chart'} | (yaml.safe_load('\n'.join(o for o in opts if o.startswith(('fig-','classes')))) or {})
            c.metadata = dict(tags=[tags[o] for o in opts if o in tags])
            if len(fig) > 1: c.metadata['mystnb'] = dict(figure=dict(caption=fig['fig-cap']), image=dict(alt=fig['fig-alt'], classes=fig['classes']))
            c.outputs = [new_output('stream', text=o.data['text/plain']) if [*o.get('data', ())] == ['text/plain'] else o for o in c.outputs]
            for o in (o.data for o in c.outputs if 'data' in o): # and not text, which would have the caption, too
                if 'image/png' in o: self.figures.append((page, fig, o['image/png']))
                if 'text/html' in o: o['text/html'] = aligned(o['text/html'])
        else: c.source = opened(linked(c.source, 'html'))
        return c

    def write(self):
        tree,files = self.toctree(),{page_of(o):o for o in self.src.glob('*.ipynb')}
        order = tree.replace('Overview <self>', 'index').split('\n')
        for page in sorted(files, key=order.index):
            nb = nbformat.read(files[page], 4)
            nb.cells = list(filter(None, (self.cell(c, page, files[page].name) for c in nb.cells)))
            nb.metadata = dict(kernelspec=nb.metadata.kernelspec, language_info=dict(name='python', pygments_lexer='python'))
            if page == 'index': nb.cells.append(new_markdown_cell(tree))
            nbformat.write(nb, self.dest/f'{page}.ipynb')
        def md(name, *parts): (self.dest/f'{name}.md').write_text('\n'.join(parts), encoding='utf-8')
        def index(p): return f'\n## {self.pages[p][0]}\n\n{{.params}}\n| Name | What it is |\n|---|---|\n' + '\n'.join(
            f'| [`{n}`]({p}.html#{n.lower()}) | {doc} |' for n,doc in self.names[p])
        md('names', '# All names\n\nEvery public name, by the page that tells more of it.', *(index(p) for p in order if p in self.names))
        for i,(*_,png) in enumerate(self.figures): (self.dest/f'figure{i}.png').write_bytes(base64.b64decode(png))
        md('gallery', '# Gallery\n', 'Every figure of these pages, and where it is from.\n', cards(
            (self.pages[p][0], f'{p}.html', o['fig-cap'], f':img-top: figure{i}.png', f":img-alt: {o['fig-alt']}", f":class-img-top: {o['classes']}")
            for i,(p,o,_) in enumerate(self.figures)))
        shutil.copy(root/'CHANGELOG.md', self.dest/'changelog.md')

    def toctree(self):
        "The sidebar, in the order of `nbs/sidebar.yml`, and what only this site has"
        extra,res = {'Reference':['names.md'], 'More':['gallery.md','changelog.md']},[]
        for o in yaml.safe_load((root/'nbs/sidebar.yml').read_text(encoding='utf-8'))['website']['sidebar']['contents']:
            pages = map(page_of, [*o['contents'], *extra.get(o['section'], [])])
            res += [f"```{{toctree}}\n:hidden:\n:caption: {o['section']}\n", *('Overview <self>' if p=='index' else p for p in pages), '```\n']
        return '\n'.join(res)

def twin(html):
    "A page as plain Markdown"
    page = BeautifulSoup(html, 'html.parser').article
    for o in page.select('.headerlink, .viewcode-link, .download, .sd-stretched-link, summary, style, script'): o.decompose()
    for o in page.select('dl, dd'): o.unwrap()
    for o in page.select('dt.sig'): o.name,o.string = 'h3',f"`{' '.join(o.get_text().split())}`"
    language = lambda o: re.search('highlight-(python|sh)|$', str(o.parent.parent.get('class')))[1]
    how = dict(heading_style='ATX', code_language_callback=language, escape_misc=False, escape_underscores=False, escape_asterisks=False)
    return markdownify(str(page), **how).strip()+'\n'

def main(out='_docs'):
    "Make the site in the folder `out`, and replace what it holds"
    out = Path(out).absolute()
    if out.exists() and any(out.iterdir()) and not (out/'searchindex.js').exists(): return f'{out} holds something else than a site.'
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        (src := tmp/'src').mkdir()
        bridge = Bridge(process(tmp), src)
        bridge.write()
        if res := build_main(['-n', '-W', '--keep-going', '-q', '-c', str(root/'docs'), str(src), str(tmp/'html')]): return res
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(tmp/'html', out, ignore=shutil.ignore_patterns('.doctrees', '.buildinfo', '_sources'))
        for p in bridge.pages: (out/f'{p}.html.md').write_text(twin((out/f'{p}.html').read_text(encoding='utf-8')), encoding='utf-8')
    llms = linked((root/'nbs/llms.txt').read_text(encoding='utf-8'), 'html.md') # with the modules
    pages = [f'- [{t}]({p}.html.md): {d}\n' for p,(t,d) in bridge.pages.items() if f'({p}.html.md)' not in llms]
    (out/'llms.txt').write_text(''.join([llms, '\n## Pages\n\n', *pages]), encoding='utf-8')

if __name__ == '__main__': sys.exit(main(*sys.argv[1:]))
