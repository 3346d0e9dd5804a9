"""The frame of a report: one HTML file that needs nothing else. Light and dark, for a phone and for paper."""

from html import escape

GENERATOR = '<meta name="generator" content="metarun">'
CSS = """
:root { color-scheme: light dark; --paper: #fff; --card: #f6f7f9; --ink: #1c2430; --faint: #aab2bd; --dim: #5b6675;
  --line: #e1e5ea; --good: #0a7d4f; --bad: #c0392b; --s1: #1f6fb5; --s2: #d1495b; --s3: #1b8a74; --s4: #c77700;
  --s5: #7a4fa3; --s6: #6a7480; --s7: #9c5a2e; --s8: #0f8ea8; --negative: invert(1); }
@media screen and (prefers-color-scheme: dark) { :root { --paper: #12161c; --card: #1a2029; --ink: #e6eaf0;
  --faint: #566170; --dim: #9aa6b5; --line: #2a323d; --good: #4cc38a; --bad: #ff7b6b; --s1: #62a8e8; --s2: #f0798a;
  --s3: #4fc2a9; --s4: #f0a63c; --s5: #b48ce0; --s6: #a3afbd; --s7: #d29667; --s8: #4fc3dc; --negative: none; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { margin: .4rem 0 .8rem; }
h1, h3, p, figcaption { overflow-wrap: anywhere; }
a { color: var(--s1); }
.dim, figcaption, .legend { color: var(--dim); font-size: .88rem; }
nav { margin: 1rem 0; display: flex; flex-wrap: wrap; gap: .4rem .9rem; font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .45rem .75rem .45rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--dim); font-weight: 600; font-size: .82rem; }
td { font-size: .92rem; }
td:first-child { min-width: 11rem; max-width: 26rem; overflow-wrap: break-word; }
.below { color: var(--dim); font-size: .82rem; white-space: normal; }
td.n, th.n { text-align: right; white-space: nowrap; }
.best { font-weight: 700; }
.inside { color: var(--good); }
.outside { color: var(--bad); }
.dot { display: inline-block; width: .7rem; height: .7rem; border-radius: 50%; margin-right: .5rem; }
figure { margin: .6rem 0 1rem; }
@media screen and (min-width: 64rem) { section > figure { display: grid; grid-template-columns: 43.2rem 1fr;
  gap: 1.6rem; align-items: center; } }
svg { width: 100%; height: auto; display: block; }
svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif !important; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem;
  align-items: start; }
.task { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .8rem 1rem 1rem; }
.row { display: flex; flex-wrap: wrap; gap: .45rem; margin: .2rem 0 .6rem; }
.tile { width: 3.4rem; text-align: center; font-size: .75rem; line-height: 1.3; color: var(--dim); }
.tile img { width: 100%; display: block; image-rendering: pixelated; filter: var(--negative); border-radius: .2rem; }
.tile.wrong { color: var(--bad); font-weight: 700; }
.wrong .frame { outline: 2px solid var(--bad); border-radius: .2rem; margin-bottom: .15rem; }
pre { font: .84rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .7rem .9rem;
  overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
@media (max-width: 40rem) { body { padding: 1.2rem .9rem 3rem; } h1 { font-size: 1.35rem; } }
@media print { section > h2 { break-after: avoid; } figure, .task, tr { break-inside: avoid; } nav { display: none; } }
"""


def page(title: str, lead: str, sections: list[tuple[str, str, str]]) -> str:
    """The whole page.

    Args:
        title: of the page, plain text.
        lead: below it, HTML.
        sections: for each its anchor, its heading in plain text, and its HTML.
    """
    links = "".join(f'<a href="#{anchor}">{escape(heading)}</a>' for anchor, heading, _ in sections)
    body = "\n".join(
        f'<section id="{anchor}"><h2>{escape(heading)}</h2>\n{html}</section>' for anchor, heading, html in sections
    )
    # No script, and nothing from elsewhere: the policy says so to the browser, whatever a run's files say.
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape(title)}</title>
{GENERATOR}
<link rel="icon" href="data:,">
<style>{CSS}</style>
</head>
<body>
<header><h1>{escape(title)}</h1>
{lead}
<nav aria-label="sections">{links}</nav></header>
<main>
{body}
</main>
</body>
</html>
"""


def table(head: list[str], rows: list[list[str]], numbers: frozenset[int] = frozenset()) -> str:
    """An HTML table; cells are HTML, headings plain text, and the columns in `numbers` are numbers."""

    def cells(tag: str, some: list[str]) -> str:
        return "".join(f"<{tag}{' class=n' if n in numbers else ''}>{cell}</{tag}>" for n, cell in enumerate(some))

    body = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    heads = cells("th", [escape(text) for text in head])
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def figure(content: str, caption: str = "") -> str:
    """A picture with what has to be said about it, in HTML."""
    return f"<figure>{content}{f'<figcaption>{caption}</figcaption>' if caption else ''}</figure>"
