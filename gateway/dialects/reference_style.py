"""How the reference page looks. Colours keep a contrast of 4.5 to 1 or more, light and dark."""

STYLE = """
:root{color-scheme:light dark;--ink:#1c2128;--soft:#57606a;--paper:#fff;--panel:#f5f7f9;--line:#d0d7de;--link:#0757b8;
--get:#0a6c3a;--post:#8a4600;--delete:#b3202c}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#a3adb8;--paper:#0f141a;--panel:#171e26;--line:#333d48;
--link:#7cb7ff;--get:#5fd394;--post:#f2b25c;--delete:#ff8f8f}}
*{box-sizing:border-box}html{scroll-padding-top:1rem}
body{margin:0;color:var(--ink);background:var(--paper);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
a{color:var(--link)}a:focus-visible,summary:focus-visible,[tabindex]:focus-visible{outline:3px solid var(--link);
outline-offset:2px}
.skip{position:absolute;left:-999px}.skip:focus{left:1rem;top:1rem;background:var(--paper);padding:.5rem;z-index:2}
code,pre{font:.875em/1.5 ui-monospace,"SF Mono",Menlo,Consolas,monospace}
nav{padding:1rem 1.25rem;border-bottom:1px solid var(--line);background:var(--panel)}
nav h2{margin:1rem 0 .25rem;font-size:.8rem;color:var(--soft);letter-spacing:.04em}
nav ul{margin:0;padding:0;list-style:none}nav li a{display:block;padding:.15rem 0;color:inherit;text-decoration:none;
overflow-wrap:anywhere}nav li a:hover{text-decoration:underline}
main{padding:1rem 1.25rem 4rem;max-width:62rem}h1{font-size:2rem;margin:.5rem 0}
h1 small{color:var(--soft);font-size:1rem;font-weight:400}
section>h2{margin:3rem 0 .25rem;padding-bottom:.25rem;border-bottom:2px solid var(--line)}
article{margin:2rem 0;padding-bottom:1rem;border-bottom:1px solid var(--line)}article:last-child{border-bottom:0}
h3{margin:0 0 .5rem;font-size:1.1rem;overflow-wrap:anywhere}h3 code{font-size:1em}
.method{display:inline-block;min-width:3.6em;font:700 .75em/1.6 ui-monospace,Menlo,Consolas,monospace}
.get{color:var(--get)}.post{color:var(--post)}.delete{color:var(--delete)}
pre{margin:.75rem 0;padding:.75rem 1rem;overflow:auto;background:var(--panel);border:1px solid var(--line);
border-radius:6px}
.wide{overflow-x:auto}table{width:100%;margin:1rem 0;border-collapse:collapse;font-size:.925rem}
caption{padding-bottom:.25rem;font-weight:600;text-align:left}
th,td{padding:.35rem .75rem .35rem 0;border-top:1px solid var(--line);text-align:left;vertical-align:top}
th{color:var(--soft);font-weight:500}td:first-child{white-space:nowrap}
.required{color:var(--delete);font-size:.8rem;font-style:normal}
summary{cursor:pointer;color:var(--link)}
@media(min-width:64rem){body{display:grid;grid-template-columns:21rem minmax(0,1fr)}
nav{position:sticky;top:0;height:100vh;overflow:auto;border-right:1px solid var(--line);border-bottom:0}
main{padding:1.5rem 3rem 6rem}}
"""
