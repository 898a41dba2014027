"Build the site: `python docs/build.py [outdir]`. Every notebook is a page, and the index the front; needs no network and no quarto"
import os, re, shutil, sys, tempfile
from fnmatch import fnmatch
from pathlib import Path
import nbformat, yaml
from nbdev.config import nbpath2html
from nbdev.doclinks import NbdevLookup
from nbdev.serve import proc_nbs
from nbformat.v4 import new_markdown_cell
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx.cmd.build import build_main

root = Path(__file__).resolve().parent.parent
# Groups of the sidebar; a notebook goes to the first that takes it
groups = {'Start':'index.ipynb', 'Tutorials':'tutorial*.ipynb', 'Reference':'[0-9]*.ipynb', 'More':'*.ipynb'}
# Options of a cell, in quarto's words and in myst-nb's
tags = {'echo: false':'remove-input', 'output: false':'remove-output', 'code-fold: true':'hide-input'}

def process(
    tmp:Path, # An empty folder: nothing is written elsewhere, so builds can't meet
) -> Path: # Folder of processed notebooks
    "What `nbdev-docs` hands to quarto: the notebooks without what is hidden, with the docs of what they export"
    shutil.copytree(root/'nbs', tmp/'nbs')
    shutil.copy(root/'pyproject.toml', tmp)
    return proc_nbs(tmp/'nbs', n_workers=0)

def show_doc(cell):
    "The Markdown that `show_doc` left in `cell`"
    outs = cell.get('outputs', []) if 'show_doc(' in cell.source else []
    return next((o.data['text/markdown'] for o in outs if 'text/markdown' in o.get('data', {})), None)

def per_line(f, md):
    "`f` of each line of `md` that is no code"
    parts = re.split(r'(^```.*?^```$)', md, flags=re.M|re.S)
    return ''.join(o if i%2 else '\n'.join(map(f, o.split('\n'))) for i,o in enumerate(parts))

def escape(text, chars):
    "`text` with a backslash before `chars`, except in code"
    return ''.join(o if i%2 else re.sub(f'([{chars}])', r'\\\1', o) for i,o in enumerate(re.split('(`.*?`)', text)))

def short(typ): return re.sub(r'\b(?:[a-z_]\w*\.)+(\w+)', r'\1', typ) # without modules

class Bridge:
    "Turns notebooks written for quarto into notebooks for myst-nb"
    def __init__(self,
        src:Path, # Folder of processed notebooks
    ):
        self.lookup,self.files = NbdevLookup(),set()
        at = self.lookup.entries['fastai_clrbeta']['settings']
        self.base = at['doc_host'] + at['doc_baseurl'].rstrip('/') + '/'
        self.nbs = {o.name:nbformat.read(o, 4) for o in sorted(src.glob('*.ipynb'))}
        # nbdev links all names it knows, also those without docs
        docs = filter(None, (show_doc(c) for nb in self.nbs.values() for c in nb.cells))
        self.hidden = {self.url(o) for o in self.lookup.syms} - {self.url(self.name(o)) for o in docs}

    def url(self, name): return (self.lookup.doc(name) or '').removeprefix(self.base)

    def name(self, md):
        "The name documented by `md`; a method that a decorator hides from `show_doc` is the Learner's"
        nm = re.search('^#+ (.+)$', md, re.M)[1]
        return nm if self.lookup[nm] else f'Learner.{nm}'

    def prose(self, md):
        "`md` with callouts as admonitions, and links that work in this site"
        md = re.sub(r'^::: *{\.callout-(\w+).*?}\s*\n#+ (.+)', r':::{admonition} \2\n:class: \1', md, flags=re.M)
        md = re.sub(r'^::: *{\.callout-(\w+).*?title="(.+?)".*', r':::{admonition} \2\n:class: \1', md, flags=re.M)
        md = re.sub(r'^::: *{\.callout-(\w+).*', r':::{\1}', md, flags=re.M)
        return per_line(self.links, md)

    def links(self, line):
        def method(m):
            "`learn.fit_clr_beta(0.8)` and `fit_clr_beta` are the Learner's"
            url = self.lookup.doc(f'Learner.{m[1]}')
            return f'[{m[0]}]({url})' if url else m[0]
        def page(m):
            text,url = m[1],nbpath2html(m[2]+'.ipynb').name + (m[3] or '')
            while url in self.hidden: url = url.rpartition('.')[0] # of a method without docs, to its class
            return f'[{text}]({url})' if '.html' in url else text
        def file(m):
            "A file of the repository comes along"
            path = m[2].removeprefix('../')
            if (root/path).is_file(): self.files.add(path)
            return f'{m[1]}({path})'
        if line.startswith('#'): return re.sub(r'\[(`[^`]+`)\]\(\S+?\)', r'\1', line)
        line = re.sub(r'(?<!\[)`(?:learn\.)?(\w+)(?:\([^`]*\))?`(?!\])', method, line)
        line = re.sub(rf'\[([^\]]*)\]\((?:{re.escape(self.base)})?([\w-]+)\.(?:html|ipynb)(#[^)]*)?\)', page, line)
        return re.sub(r'((?<!!)\[[^\]]*\])\((?!\w+:|#|/)([^)\s#]+(?<!\.html))\)', file, line)

    def api(self, md):
        "nbdev's docs of one name, with an anchor, a link to its source, and its parameters as a table"
        name = self.name(md)
        sig,doc = re.search(r'^```python\n(.*?)\n```\s*(.*)', md, re.M|re.S).groups()
        sig = re.sub(r'<function (\w+) at 0x\w+>', r'\1', sig).replace('__main__.', '').replace(':NoneType=', '=')
        sig = self.table(sig) if ' # ' in sig else f'```python\n{short(sig)}\n```'
        src = re.search(r'(\w+)\.py#L(\d+)$', self.lookup.code(name) or '')
        src = f'[source](source/{src[1]}.html#L-{src[2]}){{.source}}' if src else ''
        doc = re.sub(r'^\*(.*)\*$', r'\1', doc, count=1, flags=re.M) # italics of the first line alone
        doc = per_line(lambda o: escape(o, '<'), doc)
        return f'<div class="anchor" id="{name.lower()}"></div>\n\n### {name}\n\n{src}\n\n{self.prose(doc)}\n\n{sig}\n'

    def table(self, sig):
        "The parameters in the signature `sig`, one a line with its comment, as a table"
        res = ['{.params}', '| Parameter | Meaning |', '|---|---|']
        for line in re.sub(r'\n    # ', ' ', sig).splitlines()[1:]:
            arg,_,doc = (o.strip() for o in line.partition(' # '))
            ret = re.match(r'\)(?:->(.+))?:$', arg)
            name,typ,val = ('',ret[1],None) if ret else re.match(r'(?:\*, )?([^:=]+)(?::(.*?))?(?:=(.*?))?,?$', arg).groups()
            if not (doc or typ) and (ret or name == '*,'): continue
            typ = short(typ or '')
            typ = ' = '.join(filter(None, (typ,val))) if typ or not val else f'= {val}'
            name = f'`{name.strip(",")}`' if name else 'returns'
            doc = self.links(self.lookup.link_line(escape(doc, r'\\<*_')))
            res.append('| ' + ' | '.join(o.replace('|', r'\|') for o in (name, f'{doc} [`{typ}`]{{.type}}' if typ else doc)) + ' |')
        return '\n'.join(res)

    def cell(self, c):
        "`c` for myst-nb, or None"
        if c.cell_type == 'raw':
            fm = yaml.safe_load(c.source.strip().strip('-'))
            c = new_markdown_cell(f"# {fm['title']}\n\n{{.lead}}\n{self.prose(fm.get('description', ''))}")
        elif md := show_doc(c): c = new_markdown_cell(self.api(md))
        elif c.cell_type == 'markdown': c.source = self.prose(c.source)
        else:
            opts = re.findall(r'^#\| *(.+?) *$', c.source, re.M)
            c.source = re.sub(r'^#\|.*\n?', '', c.source, flags=re.M)
            c.metadata = dict(tags=[tags[o] for o in opts if o in tags])
            for o in c.outputs:
                if 'text/markdown' in o.get('data', {}): o.data['text/markdown'] = self.prose(o.data['text/markdown'])
            if 'include: false' in opts: return
        c.pop('has_sd', None)
        return None if c.source.startswith('<!-- WARNING') else c

    def write(self,
        dest:Path, # Folder for the pages
    ):
        "Write all pages, with the sidebar in the index"
        pages = {k:[] for k in groups}
        for name,nb in self.nbs.items():
            nb.cells = [o for o in map(self.cell, nb.cells) if o]
            nb.metadata = dict(kernelspec=nb.metadata.kernelspec, language_info=dict(name='python', pygments_lexer='ipython3'))
            pages[next(k for k,v in groups.items() if fnmatch(name, v))].append(Path(nbpath2html(name)).stem)
        for k,v in pages.items():
            names = '\n'.join(o if o!='index' else 'Overview <self>' for o in v)
            if v: self.nbs['index.ipynb'].cells.append(new_markdown_cell(f'```{{toctree}}\n:hidden:\n:caption: {k}\n\n{names}\n```'))
        for name,nb in self.nbs.items(): nbformat.write(nb, dest/Path(nbpath2html(name)).with_suffix('.ipynb'))

def sources(dest):
    "Pages with the modules of the package: nbdev's source links, without a repository on the web"
    dest.mkdir()
    for o in (root/'fastai_clrbeta').glob('[!_]*.py'):
        code = highlight(o.read_text(encoding='utf-8'), PythonLexer(), HtmlFormatter(lineanchors='L'))
        (dest/f'{o.stem}.md').write_text(f'---\norphan: true\n---\n# {o.name}\n\n````{{raw}} html\n{code}\n````\n', encoding='utf-8')

def main(
    out:str='_docs', # Folder for the site; what it holds is replaced
):
    out = Path(out).absolute()
    if out.exists() and any(out.iterdir()) and not (out/'searchindex.js').exists(): return f'{out} holds something else than a site.'
    os.chdir(root)
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        src,bridge = tmp/'src',Bridge(process(tmp))
        # pictures and the like, which pages show
        shutil.copytree(tmp/'_proc', src, ignore=shutil.ignore_patterns('*.ipynb','*.yml','*.css','.*'))
        bridge.write(src)
        sources(src/'source')
        if res := build_main(['-n', '-W', '--keep-going', '-q', '-c', str(root/'docs'), str(src), str(tmp/'html')]): return res
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(tmp/'html', out, ignore=shutil.ignore_patterns('.doctrees', '.buildinfo', '_sources'))
    for o in bridge.files:
        (out/o).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root/o, out/o)

if __name__ == '__main__': sys.exit(main(*sys.argv[1:]))
