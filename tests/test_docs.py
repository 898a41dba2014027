"""The site: it builds without a warning, says all, links to what is there, and looks right in a browser, on
phone and desktop"""
import ast, importlib, inspect, io, re, shutil, threading
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urldefrag, urljoin, urlparse
import nbformat
import pytest
from PIL import Image
from bs4 import BeautifulSoup
from markdown_it import MarkdownIt
from fastcore.docments import docments
from nbdev.config import nbpath2html
from nbdev.doclinks import NbdevLookup
from conftest import root
from processes import run, run_script

notebooks = sorted((root/'nbs').glob('[!_]*.ipynb'))

addresses = '''
[project.urls]
Repository = "https://github.com/someone/fastai_clrbeta"
Issues = "https://github.com/someone/fastai_clrbeta/issues"
PyPI = "https://pypi.org/project/fastai_clrbeta/"
'''

@pytest.fixture(scope='session')
def project(tmp_path_factory):
    "Copy the project, and give it addresses on the web."
    folder = tmp_path_factory.mktemp('project')
    for o in ('docs','nbs','fastai_clrbeta','.ci'): shutil.copytree(root/o, folder/o)
    shutil.copy(root/'CHANGELOG.md', folder)
    settings = (root/'pyproject.toml').read_text(encoding='utf-8')
    settings = re.sub(r'^\[project\.urls\]\n(.+\n)*', '', settings, flags=re.M)
    settings = settings.replace('[tool.nbdev]', f'{addresses}\n[tool.nbdev]')
    (folder/'pyproject.toml').write_text(settings, encoding='utf-8')
    return folder

@pytest.fixture(scope='session')
def build(project):
    """The folder of the site, and exit code and words of its building, in another process: what nbdev runs
    must not reach this one"""
    return project/'site',*run(run_script, 'docs/build.py', project/'site', folder=project)

@pytest.fixture(scope='session')
def site(build):
    out,code,_ = build
    if code: pytest.fail('the site does not build, see test_site_builds', pytrace=False)
    return out

@pytest.fixture(scope='session')
def pages(site):
    "All pages, by their path"
    def parsed(path): return BeautifulSoup(path.read_text(encoding='utf-8'), 'html.parser')
    return {o.relative_to(site).as_posix():parsed(o) for o in site.rglob('*.html')}

@pytest.mark.parametrize('nb', notebooks, ids=lambda o: o.stem)
def test_imports_have_cells_of_their_own(nb):
    """nbdev runs each cell that imports when it makes the docs, hidden ones too, and the names that others
    define are missing then"""
    cells = [o.source for o in nbformat.read(nb, 4).cells if o.cell_type=='code']
    # without an export there is nothing to document, and nothing is run
    if not any(re.search(r'^#\|\s*export\b', o, re.M) for o in cells): return
    for o in cells:
        if re.search(r'^#\|\s*(export|eval: false)', o, re.M): continue
        body = ast.parse(re.sub(r'^[%!].*', '', o, flags=re.M)).body
        imports = [n for b in body for n in ast.walk(b) if isinstance(n, (ast.Import,ast.ImportFrom))]
        assert not imports or all(n in imports for n in body), f'imports and other code in one cell:\n{o}'

def test_site_builds(build):
    "As `python docs/build.py`, where Sphinx takes a warning for an error"
    _,code,told = build
    assert code == 0 and not told, told[-3000:]

def test_a_page_for_each_notebook(pages):
    index = pages['index.html']
    sidebar = {o['href'] for o in index.select('.sidebar-tree a')}
    for nb in notebooks:
        url = nbpath2html(nb).name
        title = re.match('# (.+)', nbformat.read(nb, 4).cells[0].source)[1]
        assert pages[url].h1.contents[0] == title
        assert len(pages[url].find_all('h1')) == 1
        assert url in sidebar or url == 'index.html'
    assert index.select('.sidebar-search') and index.select('.theme-toggle')

def links_of(soup):
    "What a page links to or loads"
    for tag,attr in ('a','href'),('link','href'),('img','src'),('script','src'):
        yield from (o[attr] for o in soup.select(f'{tag}[{attr}]'))

def test_no_dead_link(pages, site):
    "Every link, picture, script and style within the site is there, and so is what its anchor names"
    ids = {page:{o['id'] for o in soup.select('[id]')} for page,soup in pages.items()}
    def is_dead(page, link):
        url,anchor = urldefrag(urljoin('http://site/'+page, link))
        if not url.startswith('http://site/'): return False
        path = unquote(url.removeprefix('http://site/').split('?')[0]) or 'index.html'
        if not (site/path).is_file(): return True
        return anchor and path in pages and unquote(anchor) not in ids[path]
    assert not [(page, link) for page,soup in pages.items() for link in links_of(soup) if is_dead(page, link)]

def public():
    "Public names and their objects: what modules export, and what they add to Learner"
    from fastai.learner import Learner
    for o in sorted((root/'fastai_clrbeta').glob('[!_]*.py')):
        if o.stem == 'all': continue
        mod = importlib.import_module(f'fastai_clrbeta.{o.stem}')
        own = [(k,v) for k in mod.__all__ if callable(v := getattr(mod, k))]
        yield from ((o.stem,k,v) for k,v in own if v.__module__ == mod.__name__)  # not what it only passes on
        patched = r'^@patch.*?\ndef ([a-z]\w*)\(self: ?Learner\b'
        for k in re.findall(patched, o.read_text(encoding='utf-8'), re.M|re.S):
            yield o.stem,f'Learner.{k}',getattr(Learner, k)

@pytest.mark.parametrize('mod,name,obj', list(public()), ids=lambda o: o if isinstance(o, str) else '')
def test_public_names_are_documented(pages, mod, name, obj):
    "With its signature, its parameters and its source; of classes also what their objects can do"
    dt,dd = docs_of(pages[page_of(mod)], name)
    assert dt.select_one('.sig-name').get_text() == name.split('.')[-1]
    assert plain(re.split('\n\n|(?<=[.]) ', obj.__doc__ or '')[0]) in plain(dd.get_text())
    table = plain(''.join(o.get_text() for o in dd.select('table.params')[:1]))
    for k,v in docments(obj, full=True).items():
        shown = k.replace('_', '-') if name == 'clrbeta' else k  # an option of the command
        if k not in ('return','self') and v.docment: assert shown in table
        assert plain(v.docment or '') in table
    for k,v in vars(obj).items() if isinstance(obj, type) else ():
        if k[0] != '_' and v.__doc__ and (isinstance(v, property) or inspect.isfunction(v)):
            # a method that is patched in has its docs beside those of the class
            assert docs_of(pages[page_of(mod)], f'{name}.{k}')
    page,anchor = dt.select_one('a[href^="_modules/"]')['href'].split('#')
    code = pages[page].find(id=anchor).get_text().replace('[docs]', '')
    assert re.search(rf"^(def|class) {name.split('.')[-1]}\b", code, re.M)

def docs_of(soup, name):
    "What is said of `name`: its signature, and the rest"
    at = soup.find_all(id=name.lower())  # that of `Peak` is also that of `peak`
    found = [o if o.name == 'dt' else o.find_parent('dt') for o in at]
    last = name.split('.')[-1]
    found = [dt for dt in found if dt.select_one('.sig-name').get_text() == last]
    assert found, f'{name} has no docs'
    return found[0],found[0].find_next_sibling('dd')

def plain(s): return re.sub(r'[`*\s]', '', s)

def page_of(mod):
    "The page of module `mod`, by the notebook it comes from"
    def exports(nb): return re.search(rf'#\| default_exp {mod}\b', nb.read_text(encoding='utf-8'))
    return nbpath2html(next(filter(exports, notebooks))).name

def test_names_in_prose_are_links(pages):
    links = {o.get_text():o['href'] for o in pages['fit.html'].select('article a') if o.code}
    assert links['fit_clr_beta'].endswith('fit_clr_beta')
    assert links['plot_clr_beta'].startswith('schedule.html#')
    links = {o.get_text():o['href'] for o in pages['lr_find.html'].select('article a')}
    assert links['lr_find'].startswith('https://docs.fast.ai/')
    assert 'pandas.pydata.org' in str(pages['results.html']) or 'numpy.org' in str(pages['results.html'])

@pytest.mark.parametrize('nb', notebooks, ids=lambda o: o.stem)
def test_names_are_linked_once(nb):
    "nbdev-docs makes a link of each name that it knows, also of one that is within a link"
    texts = [c.source for c in nbformat.read(nb, 4).cells if c.cell_type == 'markdown']
    assert not [o for o in re.findall(r'\[`([\w.]+)`\]\(', '\n'.join(texts)) if NbdevLookup()[o]]

def test_outside_links_are_well_formed(pages):
    for page,soup in pages.items():
        for o in soup.select('article a[href*="//"]'):
            url = urlparse(o['href'])
            assert url.scheme == 'https' and re.fullmatch(r'[\w-]+(\.[\w-]+)+', url.netloc), (page, o['href'])
            assert not re.search(r'[\s<>"`]|None|/$/', o['href']), (page, o['href'])

def test_figures_are_told_in_words(pages):
    "Each has a caption, and a text for those who can't see it"
    for page,soup in pages.items():
        for o in soup.select('.cell_output img'):
            assert len(o.get('alt', '')) > 40, (page, o)
            figure = o.find_parent('figure')
            assert figure and len(figure.figcaption.get_text()) > 15, (page, o)
        assert not any(o.get('alt') is None for o in soup.select('article img')), page

def test_options_are_shown_as_they_are_typed(pages):
    from fastai_clrbeta.cli import clrbeta
    options = docs_of(pages['cli.html'], 'clrbeta')[1].select('td:first-child code')
    shown = {o.get_text().split()[0] for o in options}
    assert shown == {f'--{k.replace("_", "-")}' for k in inspect.signature(clrbeta).parameters}

reference = [o for o in notebooks if o.name[0].isdigit()]

def shown_code(nb):
    "The cells of code that a reader of the page sees"
    unseen = re.compile(r'^#\|\s*(export|hide|default_exp|echo: false)', re.M)
    return [c for c in nbformat.read(nb, 4).cells if c.cell_type == 'code' and not unseen.search(c.source)]

def blocks(nb):
    "The blocks of code in the prose"
    texts = [c.source for c in nbformat.read(nb, 4).cells if c.cell_type == 'markdown']
    return [o for text in texts for o in re.findall(r'^```python\n(.*?)^```', text, re.M|re.S)]

def recipe(nb):
    "The code at the top of a page: in a block, or in cells, the first of which has the imports"
    return blocks(nb) or [shown_code(nb)[0].source]

@pytest.mark.parametrize('nb', reference, ids=lambda o: o.stem)
def test_recipes_run(nb, tmp_path, monkeypatch):
    """The code at the top of a page of the reference, pasted: the import, and what one does with it; the
    images are smaller. Cells run with their notebook."""
    monkeypatch.chdir(tmp_path)
    assert recipe(nb)[0].startswith('from fastai_clrbeta.'), recipe(nb)[0]
    names = {}
    for o in blocks(nb): exec(o.replace('size=16', 'size=8'), names)

@pytest.mark.parametrize('nb', reference, ids=lambda o: o.stem)
def test_names_of_examples_are_at_hand(nb):
    "What the code on a page uses is defined there, or comes with an import that it shows"
    import builtins
    exec('\n'.join(re.findall('^from.*', recipe(nb)[0], re.M)), names := {})
    module = importlib.import_module(f'fastai_clrbeta.{nb.stem[3:]}')
    known = {*names, *vars(module), *vars(builtins)}
    for o in shown_code(nb):
        nodes = list(ast.walk(ast.parse(re.sub('^[%!].*', '', o.source, flags=re.M))))
        known |= {n.id for n in nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
        known |= {n.arg for n in nodes if isinstance(n, ast.arg)}
        named = ast.FunctionDef,ast.ClassDef,ast.ExceptHandler
        known |= {n.name for n in nodes if isinstance(n, named) and n.name}
        for n in nodes:
            if isinstance(n, (ast.Import,ast.ImportFrom)): exec(ast.unparse(n), names)
        known |= names.keys()
        missing = {n.id for n in nodes if isinstance(n, ast.Name)} - known
        assert not missing, f'{missing} in\n{o.source}'

def test_twins_and_notebooks(site, pages):
    "Each page is there for tools as Markdown, too, and for everybody as a notebook"
    for nb in notebooks:
        page = nbpath2html(nb).name
        twin = (site/f'{page}.md').read_text(encoding='utf-8')
        untranslated = r'^:::.*|\{py:.*|<(?:IPython|pandas|Figure).*|^Show .*|\.html>'
        assert twin.startswith('# ') and not re.findall(untranslated, twin, re.M)
        article = pages[page].article
        n_code = len(re.findall('^ *```python$', twin, re.M))  # also in lists
        assert n_code == len(article.select('div.highlight-python'))
        back = BeautifulSoup(MarkdownIt('commonmark').enable('table').render(twin), 'html.parser')
        in_prose = article.select('p:not(.download) a:not(.headerlink), td a')
        assert {unquote(o['href']) for o in in_prose} <= {unquote(o['href']) for o in back('a')}
        headings = [o.contents[0].get_text() for o in article('h3')]
        signatures = [o.text for o in back('h3') if o.contents[0].name == 'code' and o.text not in headings]
        names = [re.search(r'([\w.]+)\W*(\(|$)', o)[1].rpartition('.')[2] for o in signatures]
        assert [' '.join(o.text.split()) for o in article.select('.sig-name')] == names
        copy = re.search(r'href="(_downloads/[^"]+)"', (site/page).read_text(encoding='utf-8'))[1]
        assert (site/copy).name == nb.name and (site/copy).read_bytes() == nb.read_bytes()

def test_llms_txt_tells_the_pages(site):
    "Each page once, with the line that it begins with"
    text = (site/'llms.txt').read_text(encoding='utf-8')
    for nb in notebooks:
        line = re.search('^> (.+)', nbformat.read(nb, 4).cells[0].source, re.M)[1]
        told = re.findall(rf'^- \[.+\]\({nbpath2html(nb).name}\.md\): (.+)', text, re.M)
        assert told == [line]
    for o in re.findall(r'\]\((?!https:)(.+?)\)', text): assert (site/o).is_file(), o

def test_pages_are_a_path(pages):
    "From the idea to the reference; what only developers read comes last"
    def titles(caption):
        head = pages['index.html'].find('span', class_='caption-text', string=caption)
        return [o.get_text() for o in head.find_next('ul').find_all('a')]
    assert titles('Learn') == ['What is 1cycle?', 'Recipes', 'Choose a learning rate', 'Runs that survive',
        'Coming from fit_one_cycle', 'Super-convergence', 'Appendix: the runs of 2018',
        'Coming from fastai 0.7', '1cycle and a range test in 40 lines']
    assert titles('Reference')[0] == 'Troubleshooting'
    assert titles('Internals')[-1] == 'Checks and figures'

short = [o.stem for o in notebooks if o.stem.startswith('tutorial')] + ['troubleshooting']

@pytest.mark.parametrize('name', short)
def test_a_page_has_at_most_1500_words(name):
    "In its cells of text. What its cells of code print is not counted"
    cells = nbformat.read(root/f'nbs/{name}.ipynb', 4).cells
    assert sum(len(o.source.split()) for o in cells if o.cell_type == 'markdown') <= 1500

def places(soup):
    "Return where a page leads outside, and the commands that it shows."
    links = [o['href'] for o in soup.select('.sidebar-tree a, .download a')]
    return [o for o in links if '//' in o],[o.get_text() for o in soup.select('.highlight-sh pre')]

def test_an_address_is_told_once_and_shown_everywhere(pages, project):
    "In `[project.urls]` of pyproject.toml, and then on the site and in README"
    known = re.findall('"(.+)"', addresses)
    colab = 'https://colab.research.google.com/github/someone/fastai_clrbeta/blob/main/nbs/13_fit.ipynb'
    assert places(pages['fit.html'])[0] == [*known, colab]
    assert places(pages['index.html'])[1][0] == 'pip install fastai_clrbeta\n'
    run(run_script, '.ci/readme.py', folder=project)
    assert '```sh\npip install fastai_clrbeta\n```' in (project/'README.md').read_text(encoding='utf-8')

def test_no_address_no_link(monkeypatch):
    monkeypatch.syspath_prepend(root/'docs')
    from links import colab, with_pip
    install = '## Install and run\n\nFrom a clone'
    assert with_pip({}, install) == install
    assert colab({}, '13_fit.ipynb') is None

@pytest.fixture(scope='session')
def url(site):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    with ThreadingHTTPServer(('127.0.0.1',0), partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}/'
        server.shutdown()

switches = '''headless=new no-sandbox disable-gpu disable-quic no-first-run disable-background-networking
disable-component-update disable-sync'''

@pytest.fixture(scope='session')
def browser(tmp_path_factory):
    from selenium import webdriver
    chromium,driver = shutil.which('chromium'),shutil.which('chromedriver')
    if not (chromium and driver): pytest.skip('no chromium and chromedriver here')
    opts = webdriver.ChromeOptions()
    opts.binary_location = chromium
    for o in switches.split(): opts.add_argument(f'--{o}')
    opts.add_argument(f'--user-data-dir={tmp_path_factory.mktemp("chromium")}')
    opts.set_capability('goog:loggingPrefs', {'browser':'ALL'})
    res = webdriver.Chrome(options=opts, service=webdriver.ChromeService(driver))
    yield res
    res.quit()

check = '''
const root = document.documentElement, width = root.clientWidth;
const bad = [], html = o => o.outerHTML.slice(0,80);
for (const o of document.images) if (!o.complete || !o.naturalWidth) bad.push(`no picture: ${o.src}`);
if (root.scrollWidth > width) bad.push(`page is ${root.scrollWidth} wide`);
// what is wider than the article scrolls in a box of its own, and nothing hides
const overflow = o => getComputedStyle(o).overflowX;
const scrolls = o => o && o.tagName != 'ARTICLE' &&
    (['auto','scroll'].includes(overflow(o)) || scrolls(o.parentElement));
for (const o of document.querySelectorAll('article *:not(pre *)')) {
    const box = o.getBoundingClientRect(), hides = ['hidden','clip'].includes(overflow(o));
    const outside = box.width && (box.right > width+1 || box.left < -1);
    if (outside && !scrolls(o)) bad.push(`sticks out: ${html(o)}`);
    if (hides && o.clientWidth > 1 && o.scrollWidth > o.clientWidth+1) bad.push(`is cut: ${html(o)}`);
}
// code is read whole on a desktop
const onDesktop = width > 1000 && !location.pathname.includes('_modules');
for (const o of onDesktop ? document.querySelectorAll('article pre') : []) {
    const sideways = o.checkVisibility() && o.scrollWidth > o.clientWidth+1;
    if (sideways) bad.push(`scrolls sideways: ${o.innerText.match(/.{90,}/)}`);
}
return bad'''

def resize(browser, width):
    "Make the page `width` pixels wide. A window can't be as narrow as a phone."
    size = dict(width=width, height=900, deviceScaleFactor=1, mobile=False)
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', size)

def show(browser, url, width):
    "Load the page with a width of `width` pixels. Return the errors of the browser."
    resize(browser, width)
    browser.get(url)
    return [o['message'] for o in browser.get_log('browser') if o['level'] == 'SEVERE']

axe = '''
const [whole,done] = arguments;
// the rules about colours take long
const rules = {'color-contrast': {enabled: whole}, 'link-in-text-block': {enabled: whole}};
const tags = ['wcag2a','wcag2aa','wcag21aa','best-practice'];
// code is one text each, without its colours: axe would look at every word
for (const o of document.querySelectorAll('pre')) o.textContent = o.textContent;
axe.run(whole ? document : 'article', {resultTypes: ['violations'], runOnly: tags, rules}).then(res => {
    const grave = res.violations.filter(o => ['serious','critical'].includes(o.impact));
    done(grave.map(o => `${o.id}: ${o.nodes.map(n => n.html.slice(0,90)).slice(0,3)}`));
})'''

def unfit(browser, whole=True):
    """Return what makes the page hard for people with disabilities, as axe-core finds it in the article. If
    `whole`, it checks the whole page, and also its colours. This changes the page."""
    package = Path(find_spec('axe_playwright_python').origin).parent
    browser.execute_script((package/'axe.min.js').read_text(encoding='utf-8'))
    return browser.execute_async_script(axe, whole)

@pytest.mark.slow
def test_pages_in_a_browser(browser, pages, url):
    "On a desktop and on a phone. Of the pages that show source code, one is enough"
    bad = {}
    for o in [o for o in pages if not o.startswith('_modules')] + ['_modules/fastai_clrbeta/fit.html']:
        errors = show(browser, url+o, 390)
        for width in (390,1280):
            resize(browser, width)
            assert browser.execute_script('return innerWidth') == width
            errors += browser.execute_script(check)
        if not o.startswith('_modules'):
            errors += unfit(browser, whole=o in ('index.html','schedule.html'))
        if errors: bad[o] = errors
    assert not bad

@pytest.mark.slow
def test_contents_of_a_page_are_in_sight(browser, url):
    "On a small desktop, beside the text; a phone has them behind a button"
    seen = """const box = document.querySelector('.toc-tree').getBoundingClientRect();
        return box.width > 100 && box.left >= 0 && box.right <= innerWidth"""
    for width in (1280,1440,1920):
        show(browser, url+'fit.html', width)
        assert browser.execute_script(seen), width
    show(browser, url+'fit.html', 390)
    assert not browser.execute_script(seen)

@pytest.mark.slow
def test_search(browser, url):
    from selenium.webdriver.support.ui import WebDriverWait
    assert not show(browser, url+'search.html?q=range+test', 1280)
    found = 'return [...document.querySelectorAll("#search-results li a")].map(o => o.getAttribute("href"))'
    links = WebDriverWait(browser, 20).until(lambda b: b.execute_script(found))
    assert not any(o.startswith('_modules') for o in links)

@pytest.fixture
def dark(browser, url):
    show(browser, url, 1280)
    browser.execute_script('localStorage.setItem("theme", "dark")')
    yield
    browser.execute_script('localStorage.clear()')

@pytest.mark.slow
def test_dark_mode(browser, url, pages, dark):
    "Paper and figures are dark, and all can still be read"
    ground = 'return getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).every(o => o < 64)'
    figures = '[...document.querySelectorAll("article img")]'
    for o in ('tutorial_super_convergence.html','data.html','schedule.html'):
        show(browser, url+o, 1280)
        assert browser.execute_script(ground)
        inverted = 'getComputedStyle(o).filter.startsWith("invert(0.9")'
        photos = browser.execute_script(f'return {figures}.filter(o => !{inverted}).map(o => o.className)')
        # photographs stay as they are
        assert len(photos) == o.startswith('data') and all('photo' in c for c in photos), (o, photos)
    assert not unfit(browser)
    img = browser.execute_script(f'const o = {figures}[0]; o.scrollIntoView(); return o')
    corner = Image.open(io.BytesIO(img.screenshot_as_png)).convert('L').getpixel((3,3))
    assert corner < 64
