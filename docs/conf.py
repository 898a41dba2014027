"How Sphinx builds what docs/build.py gives it"
from configparser import ConfigParser
from pathlib import Path
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

cfg = ConfigParser(delimiters=['='])
cfg.read(Path(__file__).parent.parent/'settings.ini', encoding='utf-8')
project = 'fastai_clrbeta'
author = cfg['DEFAULT']['author']
copyright = author

extensions = ['myst_nb']
nb_execution_mode = 'off'
nb_render_markdown_format = 'myst'
nb_merge_streams = True
myst_enable_extensions = ['attrs_block', 'attrs_inline', 'colon_fence', 'dollarmath']
myst_all_links_external = True # links are checked in the finished pages
suppress_warnings = ['myst.header'] # docs of a name are at level 3, wherever they stand

smartquotes = False # `--option` stays as it is

html_theme = 'furo'
html_title = project
html_static_path = ['static']
html_css_files = ['site.css']
html_favicon = 'static/favicon.svg'
html_copy_source = False
html_show_sourcelink = False
html_use_index = False
html_theme_options = {'navigation_with_keys': True}

def mathml(display):
    "Formulas as MathML, which browsers draw by themselves: MathJax would come from the network"
    def visit(self, node):
        self.body.append(tex2mathml(node.astext(), as_block=display))
        raise nodes.SkipNode
    return visit, None

html_math_renderer = 'mathml'
def setup(app): app.add_html_math_renderer('mathml', mathml(False), mathml(True))
