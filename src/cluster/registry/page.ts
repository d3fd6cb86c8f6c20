/** The registry's page: one document that needs nothing else, and a policy by which browsers run no other script on it. */
import { createHash } from 'node:crypto'

import { PAGE_SCRIPT } from './page-script.ts'
import { PAGE_STYLE } from './page-style.ts'

const heads = (...names: readonly string[]): string =>
  names
    .map((name) => {
      const [words = '', kind = ''] = name.split('|')
      const text = words === 'Actions' ? '<span class="unseen">Actions</span>' : words
      return `<th scope="col" role="columnheader"${kind === '' ? '' : ` class="${kind}"`}>${text}</th>`
    })
    .join('')

const table = (id: string, body: string, label: string, columns: string): string =>
  `<table id="${id}" role="table" aria-label="${label}"><thead role="rowgroup"><tr role="row">${columns}</tr></thead><tbody id="${body}" role="rowgroup"></tbody></table>`

const BODY = `
<header class="top"><div class="bar">
  <p class="name">Eider <span>registry</span></p>
  <p class="link waiting" id="link" role="status"><span class="dot" aria-hidden="true"></span><span id="link-text">Connecting</span></p>
</div></header>
<main>
<noscript><p class="empty">This page needs scripts. The same is at <a href="/api/v1/health">/api/v1/health</a> and <a href="/api/v1/disks">/api/v1/disks</a>.</p></noscript>
<div id="content" hidden>
<div class="health">
  <p class="word" id="word"><span class="dot" aria-hidden="true"></span><span id="word-text"></span></p>
  <h1 id="sentence" aria-live="polite" aria-atomic="true"></h1>
  <dl class="totals">
    <div><dt>Disks</dt><dd id="total-disks"></dd></div>
    <div><dt>Failure domains</dt><dd id="total-domains"></dd></div>
    <div class="fill"><dt>Used</dt><span class="meter" id="total-meter" aria-hidden="true"><i></i></span><dd id="total-room"></dd></div>
  </dl>
</div>
<section aria-labelledby="disks-title">
  <div class="head"><h2 id="disks-title">Disks<small id="disk-count"></small></h2>
    <label><span class="unseen">Show only disks with these words</span><input type="search" id="filter" placeholder="Filter" autocomplete="off" spellcheck="false"></label></div>
  <div class="frame">${table('disk-table', 'disks', 'Disks', heads('Disk', 'Status', 'Address', 'Failure domain', 'Class|number', 'Last heard', 'Used', 'Actions'))}
    <p class="empty" id="no-disks" hidden></p></div>
  <p><button type="button" id="more" hidden></button></p>
</section>
<section aria-labelledby="processes-title">
  <div class="head"><h2 id="processes-title">Coordinator and shards</h2></div>
  <div class="frame">${table('process-table', 'processes', 'Coordinator and shards', heads('What', 'Status', 'Address', 'Last heard'))}</div>
</section>
<p id="trouble" role="alert"></p>
<footer><a href="/api/v1/openapi.json">API</a><a href="/metrics">Metrics</a><span>Cluster <span id="cluster"></span></span></footer>
</div>
</main>
<dialog id="ask" aria-labelledby="ask-title" aria-describedby="ask-what"><form method="dialog">
  <h2 id="ask-title"></h2><p class="faint" id="ask-where"></p><p id="ask-what"></p>
  <div class="buttons"><button value="no" id="ask-no">Cancel</button><button value="yes" id="ask-yes" class="primary"></button></div>
</form></dialog>`

/** The whole document. */
export const PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Eider registry</title>
<link rel="icon" href="data:,">
<style>${PAGE_STYLE}</style>
</head>
<body>${BODY}
<script>${PAGE_SCRIPT}</script>
</body>
</html>
`

const hash = (text: string): string => `'sha256-${createHash('sha256').update(text).digest('base64')}'`

/** As a content security policy. The script sets widths by the style of elements, which no inline style of markup is. */
export const PAGE_POLICY = [
  "default-src 'none'",
  `style-src ${hash(PAGE_STYLE)}`,
  `script-src ${hash(PAGE_SCRIPT)}`,
  "connect-src 'self'",
  'img-src data:',
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ')
