/** How the registry's page looks: dense, quiet, in light and dark, down to 320 pixels. Colour says nothing that words do not. */
export const PAGE_STYLE = String.raw`
:root {
  color-scheme: light dark;
  --ground: light-dark(#f6f7f8, #14171a);
  --surface: light-dark(#ffffff, #1b1f23);
  --line: light-dark(#dfe3e6, #2e343a);
  --ink: light-dark(#1a2026, #e4e8ec);
  --faint: light-dark(#5a6570, #98a3ae);
  --accent: light-dark(#0b6477, #63c0d3);
  --good: light-dark(#1d7a46, #58c088);
  --warn: light-dark(#945a00, #e2a94a);
  --bad: light-dark(#b3261e, #f2837b);
  --track: light-dark(#e6eaed, #2b3137);
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 14px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
  font-variant-numeric: tabular-nums;
}
main, .bar { max-width: 1200px; margin: 0 auto; padding: 0 20px; }
.top { background: var(--surface); border-bottom: 1px solid var(--line); }
.bar { display: flex; align-items: center; justify-content: space-between; min-height: 44px; gap: 12px; }
.name { font-weight: 600; letter-spacing: .01em; margin: 0; font-size: 14px; }
.name span { color: var(--faint); font-weight: 400; }
.link { color: var(--faint); display: inline-flex; align-items: center; gap: 7px; font-size: 13px; }
.dot { width: 8px; height: 8px; border-radius: 50%; flex: none; background: currentColor; }
.hollow { background: none; box-shadow: inset 0 0 0 2px currentColor; }
.good { color: var(--good); } .warn { color: var(--warn); } .bad { color: var(--bad); } .faint { color: var(--faint); }
.link.live .dot { color: var(--good); } .link.lost { color: var(--bad); }

.health { padding: 26px 0 20px; }
.health h1 { font-size: 21px; line-height: 1.35; font-weight: 500; margin: 0; max-width: 62ch; text-wrap: pretty; letter-spacing: -.005em; }
.word { display: inline-flex; align-items: center; gap: 7px; font-weight: 600; font-size: 13px; margin: 0 0 6px; }
.totals { display: flex; flex-wrap: wrap; gap: 6px 28px; margin: 16px 0 0; align-items: center; }
.totals div { display: flex; gap: 7px; align-items: baseline; }
.totals dt { color: var(--faint); } .totals dd { margin: 0; font-weight: 600; }
.totals .fill { flex: 1 1 240px; max-width: 380px; align-items: center; }
.totals .fill .meter { flex: 1; }

section { margin: 0 0 26px; }
.head { display: flex; align-items: center; justify-content: space-between; gap: 12px; margin: 0 0 8px; min-height: 34px; }
h2 { font-size: 13px; font-weight: 600; margin: 0; }
h2 small { font-weight: 400; color: var(--faint); font-size: 13px; margin-left: 6px; }
.frame { background: var(--surface); border: 1px solid var(--line); border-radius: 6px; overflow: hidden; }
table { width: 100%; border-collapse: collapse; }
th { text-align: left; font-weight: 500; color: var(--faint); font-size: 12px; padding: 8px 12px; border-bottom: 1px solid var(--line); white-space: nowrap; }
td { padding: 7px 12px; border-bottom: 1px solid var(--line); vertical-align: middle; }
tbody tr:last-child td { border-bottom: 0; }
tbody tr:hover td { background: color-mix(in srgb, var(--accent) 4%, transparent); }
.number { text-align: right; }
td .sub { display: block; color: var(--faint); font-size: 12px; overflow-wrap: anywhere; }
.id { font-weight: 500; white-space: nowrap; }
.status { display: inline-flex; align-items: center; gap: 7px; white-space: nowrap; }
.status b { font-weight: 500; }
td.why .sub { max-width: 30ch; }
.room { min-width: 150px; } .room > span:last-child, time { white-space: nowrap; }
.meter { display: block; height: 6px; border-radius: 3px; background: var(--track); overflow: hidden; }
.meter i { display: block; height: 100%; background: var(--accent); border-radius: 3px 0 0 3px; }
.meter.tight i { background: var(--warn); }
.room .meter { margin-bottom: 4px; }
.actions { text-align: right; white-space: nowrap; }
tr.gone td:not(.actions) { color: var(--faint); }
.empty { padding: 22px 12px; color: var(--faint); text-align: center; margin: 0; }

button, input { font: inherit; color: inherit; }
button {
  background: var(--surface); border: 1px solid var(--line); border-radius: 5px; padding: 4px 11px; min-height: 30px; cursor: pointer;
}
button:hover { border-color: var(--accent); color: var(--accent); }
button.danger { color: var(--bad); } button.danger:hover { border-color: var(--bad); }
button.primary { background: var(--accent); border-color: var(--accent); color: var(--surface); }
button.primary:hover { color: var(--surface); filter: brightness(1.08); }
button.primary.danger { background: var(--bad); border-color: var(--bad); color: var(--surface); }
button[disabled] { opacity: .55; cursor: default; }
button + button { margin-left: 6px; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
input[type=search] { background: var(--surface); border: 1px solid var(--line); border-radius: 5px; padding: 4px 10px; min-height: 32px; width: 220px; max-width: 50vw; }
dialog { border: 1px solid var(--line); border-radius: 8px; padding: 20px; width: min(440px, calc(100vw - 32px)); background: var(--surface); color: var(--ink); box-shadow: 0 12px 40px #0004; }
dialog::backdrop { background: #0006; }
dialog h2 { font-size: 16px; margin: 0 0 8px; } dialog p { margin: 0 0 10px; } dialog .buttons { text-align: right; margin-top: 18px; }
#trouble:empty { display: none; }
#trouble { position: sticky; bottom: 12px; background: var(--surface); border: 1px solid var(--bad); color: var(--bad); border-radius: 6px; padding: 9px 13px; margin: 0 0 14px; }
footer { color: var(--faint); font-size: 12.5px; padding: 2px 0 30px; overflow-wrap: anywhere; } footer a { color: inherit; margin-right: 14px; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@media (max-width: 760px) {
  main, .bar { padding: 0 14px; }
  .health { padding: 18px 0 16px; } .health h1 { font-size: 18px; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  table, tbody { display: block; }
  tbody tr { display: grid; grid-template-columns: 1fr 1fr; gap: 8px 14px; padding: 12px; border-bottom: 1px solid var(--line); }
  tbody tr:last-child { border-bottom: 0; }
  td, td.number { display: block; padding: 0; border: 0; text-align: left; min-width: 0; overflow-wrap: anywhere; }
  tbody tr:hover td { background: none; }
  td::before { content: attr(data-label); display: block; color: var(--faint); font-size: 11.5px; }
  td.whole, td.actions { grid-column: 1 / -1; } td.actions::before, td.lead::before { content: none; }
  td.lead { font-size: 15px; } td.status-cell { text-align: right; } td.status-cell::before { content: none; } td.status-cell .status { justify-content: flex-end; }
  td.actions { text-align: left; } td.actions:not(:has(button)) { display: none; }
  td.actions button { min-height: 40px; padding: 6px 16px; }
  .head { flex-wrap: wrap; } input[type=search] { width: 100%; max-width: none; min-height: 40px; font-size: 16px; } .head label { flex: 1 1 100%; }
  .totals { gap: 4px 22px; }
}
@media (prefers-reduced-motion: no-preference) { .meter i { transition: width .4s; } }
`
