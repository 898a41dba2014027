"The site: it builds without a warning, says all, links to what is there, and looks right in a browser, on phone and desktop"
import ast, importlib, re, shutil, subprocess, sys, threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urldefrag, urljoin
import nbformat
import pytest
from bs4 import BeautifulSoup
from fastcore.docments import docments
from nbdev.config import nbpath2html
from conftest import root

notebooks = sorted((root/'nbs').glob('[!_]*.ipynb'))

@pytest.fixture(scope='session')
def build(tmp_path_factory):
    "The folder of the site and what was said while it was built; by itself, for what nbdev runs must not reach this process"
    out = tmp_path_factory.mktemp('docs')/'site'
    return out,subprocess.run([sys.executable, '-W', 'ignore', str(root/'docs/build.py'), str(out)], capture_output=True, text=True)

@pytest.fixture(scope='session')
def site(build):
    out,p = build
    if p.returncode: pytest.fail('the site does not build, see test_site_builds', pytrace=False)
    return out

@pytest.fixture(scope='session')
def pages(site):
    "All pages, by their path"
    return {o.relative_to(site).as_posix():BeautifulSoup(o.read_text(encoding='utf-8'), 'html.parser') for o in site.rglob('*.html')}

@pytest.mark.parametrize('nb', notebooks, ids=lambda o: o.stem)
def test_imports_have_cells_of_their_own(nb):
    "nbdev runs each cell that imports when it makes the docs, hidden ones too, and the names that others define are missing then"
    cells = [o.source for o in nbformat.read(nb, 4).cells if o.cell_type=='code']
    if not any(re.search(r'^#\|\s*export', o, re.M) for o in cells): return # nothing to document, nothing is run
    for o in cells:
        if re.search(r'^#\|\s*(export|eval: false)', o, re.M): continue
        body = ast.parse(re.sub(r'^[%!].*', '', o, flags=re.M)).body
        imports = [n for b in body for n in ast.walk(b) if isinstance(n, (ast.Import,ast.ImportFrom))]
        assert not imports or all(n in imports for n in body), f'imports and other code in one cell:\n{o}'

def test_site_builds(build):
    "As `python docs/build.py`, where Sphinx takes a warning for an error"
    p = build[1]
    assert p.returncode == 0 and not p.stderr, p.stderr[-3000:]

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

def test_no_dead_link(pages, site):
    "Every link, picture, script and style within the site is there, and so is what its anchor names"
    dead = []
    for page,soup in pages.items():
        for tag,attr in ('a','href'),('link','href'),('img','src'),('script','src'):
            for o in soup.select(f'{tag}[{attr}]'):
                url,anchor = urldefrag(urljoin('http://site/'+page, o[attr]))
                if not url.startswith('http://site/'): continue
                path = unquote(url.removeprefix('http://site/').split('?')[0]) or 'index.html'
                if not (site/path).is_file(): dead.append((page, o[attr]))
                elif anchor and path in pages and not pages[path].find(id=unquote(anchor)): dead.append((page, o[attr]))
    assert not dead

def public():
    "Public names and their objects: what modules export, and what they add to Learner"
    from fastai.learner import Learner
    for o in sorted((root/'fastai_clrbeta').glob('[!_]*.py')):
        if o.stem == 'all': continue
        mod = importlib.import_module(f'fastai_clrbeta.{o.stem}')
        own = [(k,v) for k in mod.__all__ if callable(v := getattr(mod, k))]
        yield from ((o.stem,k,v) for k,v in own if v.__module__ == mod.__name__)  # not what it only passes on
        for k in re.findall(r'^@patch.*?\ndef ([a-z]\w*)\(self: ?Learner\b', o.read_text(encoding='utf-8'), re.M|re.S):
            yield o.stem,f'Learner.{k}',getattr(Learner, k)

def plain(s): return re.sub(r'[`*\s]', '', s)

@pytest.mark.parametrize('mod,name,obj', list(public()), ids=lambda o: o if isinstance(o, str) else '')
def test_public_names_are_documented(pages, mod, name, obj):
    anchor = pages[page_of(mod)].find(id=name.lower())
    assert anchor, f'{name} has no docs'
    docs = anchor.find_next('section')
    assert docs.find(['h2','h3']).contents[0] == name
    assert plain((obj.__doc__ or '').split('\n')[0]) in plain(docs.get_text())
    params = plain(docs.select_one('table,pre').get_text())
    for k,v in docments(obj, full=True).items():
        if k not in ('return','self'): assert k in params
        assert plain(v.docment or '') in params
    # its source is there, at this line
    page,line = docs.select_one('a[href^="source/"]')['href'].split('#L-')
    code = pages[page].pre.get_text().split('\n')[int(line)-1:]
    assert re.match(rf"(def|class) {name.split('.')[-1]}\b", next(o for o in code if not o.startswith('@')))

def page_of(mod):
    "The page of module `mod`, by the notebook it comes from"
    return next(nbpath2html(o).name for o in notebooks if re.search(rf'#\| default_exp {mod}\b', o.read_text(encoding='utf-8')))

def test_names_in_prose_are_links(pages):
    links = {o.get_text():o['href'] for o in pages['index.html'].select('article a') if o.code}
    assert links['CLRBeta'] == 'schedule.html#clrbeta' and links['fit_clr_beta'] == 'fit.html#learner.fit_clr_beta'

@pytest.fixture(scope='session')
def url(site):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    with ThreadingHTTPServer(('127.0.0.1',0), partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}/'
        server.shutdown()

@pytest.fixture(scope='session')
def browser(tmp_path_factory):
    from selenium import webdriver
    chromium,driver = shutil.which('chromium'),shutil.which('chromedriver')
    if not (chromium and driver): pytest.skip('no chromium and chromedriver here')
    opts = webdriver.ChromeOptions()
    opts.binary_location = chromium
    for o in ('headless=new','no-sandbox','disable-gpu','disable-quic','no-first-run','disable-background-networking','disable-component-update',
              'disable-sync',f'user-data-dir={tmp_path_factory.mktemp("chromium")}'): opts.add_argument(f'--{o}')
    opts.set_capability('goog:loggingPrefs', {'browser':'ALL'})
    res = webdriver.Chrome(options=opts, service=webdriver.ChromeService(driver))
    yield res
    res.quit()

check = '''
const width = document.documentElement.clientWidth, bad = [];
for (const o of document.images) if (!o.complete || !o.naturalWidth) bad.push(`no picture: ${o.src}`);
if (document.documentElement.scrollWidth > width) bad.push(`page is ${document.documentElement.scrollWidth} wide`);
// what is wider than the article scrolls in a box of its own, and nothing hides
const scrolls = o => o && o.tagName != 'ARTICLE' && (['auto','scroll'].includes(getComputedStyle(o).overflowX) || scrolls(o.parentElement));
for (const o of document.querySelectorAll('article *')) {
    const box = o.getBoundingClientRect(), hides = ['hidden','clip'].includes(getComputedStyle(o).overflowX), html = o.outerHTML.slice(0,80);
    if (box.width && (box.right > width+1 || box.left < -1) && !scrolls(o)) bad.push(`sticks out: ${html}`);
    if (hides && o.clientWidth > 1 && o.scrollWidth > o.clientWidth+1) bad.push(`is cut: ${html}`);
}
return bad'''

def show(browser, url, width):
    "The page as `width` pixels show it; a window can't be as narrow as a phone"
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', dict(width=width, height=900, deviceScaleFactor=1, mobile=False))
    browser.get(url)
    return [o['message'] for o in browser.get_log('browser') if o['level'] == 'SEVERE']

@pytest.mark.parametrize('width', [390,1280])
def test_pages_in_a_browser(browser, pages, url, width):
    bad = {}
    for o in pages:
        errors = show(browser, url+o, width)
        assert browser.execute_script('return innerWidth') == width
        if res := errors + browser.execute_script(check): bad[o] = res
    assert not bad

def test_search_and_dark_mode(browser, url):
    from selenium.webdriver.support.ui import WebDriverWait
    assert not show(browser, url+'search.html?q=range+test', 1280)
    WebDriverWait(browser, 20).until(lambda b: b.execute_script('return document.querySelectorAll("#search-results li").length'))
    paper = 'return getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).every(o => o < 64)'
    assert not browser.execute_script(paper)
    browser.execute_script('localStorage.setItem("theme", "dark")')
    show(browser, url, 1280)
    assert browser.execute_script(paper)
    browser.execute_script('localStorage.clear()')
