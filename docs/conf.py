"How Sphinx builds what docs/build.py gives it"
import re
from importlib.metadata import metadata
from docutils import nodes
from nbdev.doclinks import NbdevLookup
from fastai_clrbeta import __version__ as version
from sphinx.pycode import ModuleAnalyzer
from sphinx.transforms.post_transforms import SphinxPostTransform

project = 'fastai_clrbeta'
author = copyright = metadata(project)['Author']
extensions = ['myst_nb', 'sphinx.ext.viewcode', 'sphinx_copybutton']
nb_code_prompt_show,nb_code_prompt_hide = 'Show the code','Hide the code'
nb_execution_mode,nb_merge_streams,nb_render_markdown_format = 'off',True,'myst'
myst_enable_extensions = ['attrs_block', 'attrs_inline', 'colon_fence']
myst_all_links_external = True # links are checked in the finished pages
python_maximum_signature_line_length = 70
toc_object_entries_show_parents = 'hide' # names without `Learner.` fit into the column
html_theme,html_title = 'furo',f'{project} {version}'
html_static_path,html_css_files,html_favicon = ['static'],['site.css'],'static/favicon.svg'
html_copy_source = html_show_sourcelink = html_use_index = viewcode_follow_imported_members = False
add_module_names = smartquotes = False # `--option` stays as it is

def elsewhere(name):
    """Return where the docs of fastai, torch, pandas and the like have `name`, which may come with modules
    that they leave out."""
    *mods,last = name.split('.')
    if mods[:1] == ['matplotlib']:
        return f'https://matplotlib.org/stable/api/_as_gen/matplotlib.{mods[1]}.{last}.html'
    names = ['.'.join([*mods[:i], last]) for i in range(len(mods), -1, -1)]
    if not mods: names.append(f'Learner.{last}')
    return next((o for o in map(NbdevLookup().doc, names) if o and o.startswith('http')), None)

class Links(SphinxPostTransform):
    "Make a link of each name in prose that is documented, here or elsewhere; fold sections about the inside"
    default_priority = 5
    def run(self):
        ours = {k.split('.', 2)[2]:o for k,o in self.env.domains.python_domain.objects.items()}
        ours = {k.removeprefix('Learner.'):o for k,o in ours.items()} | ours
        for o in list(self.document.findall(nodes.literal)):
            # not `found.valley`, which is no function
            m = re.fullmatch(r'(learn\.)?((?!found\.)[A-Za-z][\w.]+)(\(.*\))?', o.astext())
            entry = o.parent.parent
            # as the name of a parameter in the first column of a table
            is_key = isinstance(entry, nodes.entry) and not entry.parent.index(entry)
            if not m or is_key or isinstance(o.parent, (nodes.reference,nodes.title)): continue
            at = ours.get(f'Learner.{m[2]}' if m[1] else m[2])
            url = self.url_of(at) if at else elsewhere(m[2])
            if url: o.replace_self(nodes.reference('', '', o.deepcopy(), refuri=url, internal=bool(at)))
        for o in self.document.findall(nodes.section):
            if not o[0].astext().startswith(('Inside', 'Internals')): continue
            summary = '<summary>Show the details</summary>'
            o[1:] = [raw(f'<details class="inside">{summary}'), *o[1:], raw('</details>')]

    def url_of(self, at):
        page = self.app.builder.get_relative_uri(self.env.docname, at.docname)
        return f'{page}#{at.node_id}'

class KeepPercent(SphinxPostTransform):
    "Keep a number and its % in one line."
    default_priority = 5
    def run(self):
        for o in list(self.document.findall(nodes.Text)):
            is_code = isinstance(o.parent, (nodes.literal,nodes.FixedTextElement))
            if not is_code: o.parent.replace(o, nodes.Text(re.sub(r'(\d) (?=%)', '\\1\xa0', o)))

def raw(html): return nodes.raw('', html, format='html')

def missing(app, env, node, content):
    url = elsewhere(node['reftarget'])
    return nodes.reference('', '', content, refuri=url) if url else content

def anchors(app, domain, kind, content):
    "Anchors as nbdev has them, such as `#learner.fit_clr_beta`"
    content.parent[0]['ids'].append(content.parent[0]['fullname'].lower())

def source(app, mod):
    """Return the code of a module and where its names are, those of the Learner's methods among them, which
    viewcode takes for functions."""
    a = ModuleAnalyzer.for_module(mod)
    return a.code,{f'Learner.{k}':v for k,v in a.find_tags().items()} | a.find_tags()

def accessible(app, page, template, context, doctree):
    """Let headings of the sidebar say how deep they are, a signature be no list of definitions, and the
    keyboard scroll code and tables."""
    tree = context.get('furo_navigation_tree', '')
    context['furo_navigation_tree'] = tree.replace('role="heading"', 'role="heading" aria-level="2"')
    sig = lambda m: f'<span class="sig-list">{m[1]}</span>'.replace('dd>', 'span>')
    body = re.sub(r'<dl>(\s*<dd><em class="sig-param".*?)</dl>', sig, context.get('body', ''), flags=re.S)
    scrolls = '<pre|<div class="(output text_html|table-wrapper)[^"]*"'
    context['body'] = re.sub(scrolls, r'\g<0> tabindex="0"', body)

def setup(app):
    app.add_post_transform(Links)
    app.add_post_transform(KeepPercent)
    app.connect('html-page-context', accessible, priority=900)  # after furo's own
    app.connect('missing-reference', missing)
    app.connect('object-description-transform', anchors)
    app.connect('viewcode-find-source', source)
