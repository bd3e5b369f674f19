"""The frame of an HTML report: no script, no font, no address outside itself; light and dark."""

from __future__ import annotations

import html
from collections.abc import Sequence

from argosy.evals.tables import TextTable

_STYLE = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1c2330;--dim:#66707f;--edge:#d8dde5;--card:#f6f8fa;--warn:#9a5b00;
--s0:#1f6fd1;--s1:#d1571f;--s2:#1f8f5f;--s3:#9445c4;--s4:#b8860b;--s5:#c2387a}
@media (prefers-color-scheme:dark){:root{--bg:#12161d;--fg:#e4e9f0;--dim:#95a0b0;--edge:#303845;--card:#1a2029;
--warn:#f0b35a;--s0:#6ea8fe;--s1:#ff9562;--s2:#5fd0a0;--s3:#c79bf0;--s4:#e3c14f;--s5:#ff86b7}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1180px;padding:1.5rem;background:var(--bg);color:var(--fg);
font:15px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;margin:0}h2{font-size:1.15rem;margin:2rem 0 .5rem}p.dim,small{color:var(--dim)}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .8rem .3rem 0;text-align:right;border-bottom:1px solid var(--edge);white-space:nowrap}
th:first-child,td:first-child{text-align:left}th{color:var(--dim);font-weight:600}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:1rem}
figure{margin:0;padding:.8rem;background:var(--card);border:1px solid var(--edge);border-radius:8px}
figcaption{font-weight:600;margin-bottom:.3rem}svg{width:100%;height:auto;display:block}
.line{fill:none;stroke-width:2}.grid{stroke:var(--edge)}.tick{fill:var(--dim);font-size:11px}.name{fill:var(--fg);font-size:12px}
.line.c0{stroke:var(--s0)}.line.c1{stroke:var(--s1)}.line.c2{stroke:var(--s2)}.line.c3{stroke:var(--s3)}
.line.c4{stroke:var(--s4)}.line.c5{stroke:var(--s5)}.dot.c0{fill:var(--s0)}.dot.c1{fill:var(--s1)}.dot.c2{fill:var(--s2)}
.dot.c3{fill:var(--s3)}.dot.c4{fill:var(--s4)}.dot.c5{fill:var(--s5)}
.key{margin-right:1rem;font-size:12px}.key::before{content:"";display:inline-block;width:.8em;height:.8em;margin-right:.35em;
border-radius:2px;background:var(--k)}.key.c0{--k:var(--s0)}.key.c1{--k:var(--s1)}.key.c2{--k:var(--s2)}
.key.c3{--k:var(--s3)}.key.c4{--k:var(--s4)}.key.c5{--k:var(--s5)}
ul.warn{color:var(--warn)}pre{background:var(--card);padding:.8rem;overflow-x:auto;border-radius:8px}
"""


def page_of(title: str, about: str, parts: Sequence[str]) -> str:
    """A whole document: its title, a dim line below it, and parts that are markup already."""
    head = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width,initial-scale=1">',
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{html.escape(title)}</h1>",
        f"<p class=dim>{html.escape(about)}</p>",
    ]
    return "\n".join([*head, *parts, "</body></html>\n"])


def table_of(table: TextTable) -> str:
    """A table as markup, its title left out."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.header)
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
