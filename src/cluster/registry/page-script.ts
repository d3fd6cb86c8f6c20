/**
 * What the registry's page does in the browser, as one script without libraries: follows the events, keeps one row for each disk and
 * shard range (a row that stays is changed in place, so that the focus and what is read aloud stay too), and asks before it changes anything.
 */
export const PAGE_SCRIPT = String.raw`
'use strict'
const ROWS_MAX = 400
const SHARDS = 256
const WORDS = {
  ok: ['ok', 'good'], full: ['full', 'warn'], drained: ['drained', 'warn'], unread: ['not read', 'warn'],
  failed: ['failed', 'bad'], stale: ['silent', 'bad'], terminated: ['terminated', 'faint'], missing: ['missing', 'bad'],
  unheard: ['not heard of yet', 'warn'], skewed: ['clock is off', 'bad'],
}
const HEALTH = { good: ['All well', 'good'], degraded: ['Needs a look', 'warn'], down: ['Partly down', 'bad'] }
const ASK = {
  drain: ['Drain', 'It takes no new blocks from then on. What it has is read as before, and Resume takes this back.'],
  resume: ['Resume', 'It takes new blocks again, and is read.'],
  terminate: ['Terminate', 'It is given up for ever: it is neither read nor written again, and this cannot be taken back. What is kept on it alone is lost.'],
}
const $ = (id) => document.getElementById(id)
const disks = new Map()
let cluster
let clockAheadMs = 0
let source
let shownAll = false
// Where all is in one place, nobody needs to read its name in each row.
let tellsLocations = false

function element(tag, name, text) {
  const made = document.createElement(tag)
  if (name) made.className = name
  if (text !== undefined) made.textContent = text
  return made
}
function setText(node, text) { if (node.textContent !== text) node.textContent = text }
function setClass(node, name) { if (node.className !== name) node.className = name }

function bytes(value) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB']
  let at = 0
  while (value >= 999.5 && at < units.length - 1) { value /= 1000; at++ }
  return Number(value.toPrecision(3)).toLocaleString('en') + ' ' + units[at]
}
function count(value, one, many) { return value.toLocaleString('en') + ' ' + (value === 1 ? one : many) }
function ago(time) {
  if (time === null) return 'not yet'
  const seconds = Math.max(0, Math.round((Date.now() + clockAheadMs - Date.parse(time)) / 1000))
  if (seconds < 2) return 'now'
  if (seconds < 100) return seconds + ' s ago'
  if (seconds < 6000) return Math.round(seconds / 60) + ' min ago'
  if (seconds < 172800) return Math.round(seconds / 3600) + ' h ago'
  return Math.round(seconds / 86400) + ' days ago'
}

function cell(row, label, name) {
  const made = element('td', name)
  made.dataset.label = label
  made.setAttribute('role', 'cell')
  row.append(made)
  return made
}
function statusIn(parent) {
  const made = element('span', 'status')
  const dot = element('span', 'dot')
  dot.setAttribute('aria-hidden', 'true')
  made.append(dot, element('b'))
  parent.append(made)
  return made
}
function showStatus(made, status) {
  const [word, colour] = WORDS[status]
  setClass(made, 'status ' + colour)
  setClass(made.firstChild, status === 'ok' ? 'dot' : 'dot hollow')
  setText(made.lastChild, word)
}
function timeIn(parent) {
  const made = element('time')
  parent.append(made)
  return made
}
function showTime(made, time) {
  if (time === null) { made.removeAttribute('datetime'); made.removeAttribute('title') }
  else { made.dateTime = time; made.title = new Date(time).toLocaleString() }
  setText(made, ago(time))
}
function newRow() {
  const row = element('tr')
  row.setAttribute('role', 'row')
  return row
}

function newDiskRow(disk) {
  const row = newRow()
  row.dataset.disk = disk.id
  const lead = cell(row, 'Disk', 'lead')
  const parts = { row, id: element('span', 'id', String(disk.id)), path: element('span', 'sub') }
  lead.append(parts.id, parts.path)
  parts.statusCell = cell(row, 'Status', 'status-cell why')
  parts.status = statusIn(parts.statusCell)
  parts.failure = element('span', 'sub')
  parts.statusCell.append(parts.failure)
  parts.address = cell(row, 'Address')
  const domain = cell(row, 'Failure domain')
  parts.domain = element('span')
  parts.location = element('span', 'sub')
  domain.append(parts.domain, parts.location)
  parts.class = cell(row, 'Class', 'number')
  parts.time = timeIn(cell(row, 'Last heard'))
  const room = cell(row, 'Used', 'room whole')
  parts.meter = element('span', 'meter')
  parts.meter.setAttribute('aria-hidden', 'true')
  parts.meter.append(element('i'))
  parts.room = element('span')
  room.append(parts.meter, parts.room)
  parts.actions = cell(row, 'Actions', 'actions')
  parts.toggle = element('button')
  parts.toggle.type = 'button'
  parts.toggle.onclick = () => ask(parts.toggle.dataset.verb, disk.id)
  parts.end = element('button', 'danger', 'Terminate')
  parts.end.type = 'button'
  parts.end.dataset.verb = 'terminate'
  parts.end.setAttribute('aria-label', 'Terminate disk ' + disk.id)
  parts.end.onclick = () => ask('terminate', disk.id)
  return parts
}
function place(parent, child, isThere) {
  if (isThere && child.parentNode !== parent) parent.append(child)
  else if (!isThere && child.parentNode === parent) child.remove()
}
function showDisk(parts, disk) {
  setClass(parts.row, disk.status === 'terminated' ? 'gone' : '')
  setText(parts.path, disk.path)
  setText(parts.address, disk.address)
  setText(parts.domain, disk.domain || '–')
  setText(parts.location, tellsLocations ? disk.location : '')
  setText(parts.class, String(disk.class))
  showStatus(parts.status, disk.status)
  setText(parts.failure, disk.failure)
  showTime(parts.time, disk.lastHeard)
  if (disk.capacityBytes === null) {
    parts.meter.hidden = true
    setText(parts.room, 'not told yet')
  } else {
    const share = disk.capacityBytes === 0 ? 1 : disk.usedBytes / disk.capacityBytes
    parts.meter.hidden = false
    setClass(parts.meter, share > 0.9 ? 'meter tight' : 'meter')
    parts.meter.firstChild.style.width = (100 * share).toFixed(1) + '%'
    setText(parts.room, bytes(disk.usedBytes) + ' of ' + bytes(disk.capacityBytes))
    parts.room.title = count(disk.blocks, 'block', 'blocks') + ', ' + bytes(disk.freeBytes) + ' free'
  }
  const isOver = disk.status === 'terminated'
  const verb = disk.flags.includes('no-write') || disk.flags.includes('no-read') ? 'resume' : 'drain'
  parts.toggle.dataset.verb = verb
  setText(parts.toggle, ASK[verb][0])
  parts.toggle.setAttribute('aria-label', ASK[verb][0] + ' disk ' + disk.id)
  place(parts.actions, parts.toggle, !isOver)
  place(parts.actions, parts.end, disk.status === 'stale' || disk.status === 'failed')
}

/** Brings the rows of a body into that order, moving as few as can be. */
function order(body, rows) {
  let next = body.firstChild
  for (const row of rows) {
    if (row === next) next = next.nextSibling
    else body.insertBefore(row, next)
  }
  while (next) { const after = next.nextSibling; next.remove(); next = after }
}
function compared(a, b) { return a.domain.localeCompare(b.domain) || a.address.localeCompare(b.address) || a.id - b.id }

function showDisks() {
  const words = $('filter').value.toLowerCase().split(/\s+/).filter(Boolean)
  const all = [...disks.values()].sort((a, b) => compared(a.disk, b.disk))
  const found = all.filter(({ disk }) => {
    const text = [disk.id, disk.address, disk.domain, disk.location, disk.path, 'class ' + disk.class, WORDS[disk.status][0]].join(' ').toLowerCase()
    return words.every((word) => text.includes(word))
  })
  const shown = shownAll ? found : found.slice(0, ROWS_MAX)
  for (const each of shown) {
    each.parts ??= newDiskRow(each.disk)
    showDisk(each.parts, each.disk)
  }
  order($('disks'), shown.map(({ parts }) => parts.row))
  $('disk-table').hidden = shown.length === 0
  $('no-disks').hidden = shown.length > 0
  setText($('no-disks'), all.length === 0 ? 'No disk has registered yet.' : 'No disk is like that.')
  setText($('disk-count'), words.length > 0 ? found.length + ' of ' + all.length : String(all.length))
  $('more').hidden = shown.length === found.length
  setText($('more'), 'Show all ' + found.length)
}

function newProcessRow() {
  const row = newRow()
  const parts = { row, name: cell(row, 'What', 'lead') }
  parts.statusCell = cell(row, 'Status', 'status-cell')
  parts.status = statusIn(parts.statusCell)
  const address = cell(row, 'Address')
  parts.address = element('span')
  parts.location = element('span', 'sub')
  address.append(parts.address, parts.location)
  parts.time = timeIn(cell(row, 'Last heard'))
  return parts
}
const processes = new Map()
function showProcesses() {
  const rows = [{ key: 'coordinator', name: 'Coordinator', process: cluster.coordinator }]
  let next = 0
  const range = (first, last) => (first === last ? 'Shard ' + first : 'Shards ' + first + ' to ' + last)
  const missing = (to) => { if (next < to) rows.push({ key: 'missing' + next, name: range(next, to - 1), process: null }) }
  for (const shards of cluster.shards) {
    missing(shards.first)
    rows.push({ key: 'shards' + shards.first, name: range(shards.first, shards.last), process: shards })
    next = Math.max(next, shards.last + 1)
  }
  missing(SHARDS)
  const keys = new Set(rows.map(({ key }) => key))
  for (const key of processes.keys()) if (!keys.has(key)) processes.delete(key)
  order($('processes'), rows.map(({ key, name, process }) => {
    if (!processes.has(key)) processes.set(key, newProcessRow())
    const parts = processes.get(key)
    setText(parts.name, name)
    showStatus(parts.status, process === null ? 'missing' : process.status)
    setText(parts.address, process === null ? '–' : process.address)
    setText(parts.location, process !== null && tellsLocations ? process.location : '')
    if (process === null) setText(parts.time, '–')
    else showTime(parts.time, process.lastHeard)
    return parts.row
  }))
}

function showHealth() {
  const { health } = cluster
  const isEmpty = disks.size === 0 && cluster.shards.length === 0 && cluster.coordinator === null
  const [word, colour] = isEmpty ? ['Waiting', 'warn'] : HEALTH[health.state]
  setClass($('word'), 'word ' + colour)
  setText($('word-text'), word)
  setText($('sentence'), health.sentence)
  document.body.dataset.state = health.state
  document.title = (health.state === 'good' ? '' : word + ' · ') + 'Eider registry'
  setText($('total-disks'), String(health.disks))
  setText($('total-domains'), String(health.domains))
  const share = health.capacityBytes === 0 ? 0 : health.usedBytes / health.capacityBytes
  $('total-meter').firstElementChild.style.width = (100 * share).toFixed(1) + '%'
  setText($('total-room'), bytes(health.usedBytes) + ' of ' + bytes(health.capacityBytes))
}

function take(next, isAll) {
  cluster = next
  clockAheadMs = Date.parse(next.now) - Date.now()
  if (isAll) {
    const ids = new Set(next.disks.map(({ id }) => id))
    for (const id of disks.keys()) if (!ids.has(id)) disks.delete(id)
  }
  for (const disk of next.disks) {
    const known = disks.get(disk.id)
    if (known) known.disk = disk
    else disks.set(disk.id, { disk })
  }
  const places = [...[...disks.values()].map((each) => each.disk), ...next.shards, ...(next.coordinator ? [next.coordinator] : [])]
  tellsLocations = new Set(places.map(({ location }) => location)).size > 1
  setText($('cluster'), next.cluster)
  showHealth()
  showDisks()
  showProcesses()
  $('content').hidden = false
}

function showLink(state) {
  setClass($('link'), 'link ' + state)
  setText($('link-text'), { live: 'Live', lost: 'Connection lost, trying again', waiting: 'Connecting' }[state])
}
function follow() {
  source = new EventSource('/api/v1/events')
  source.onopen = () => showLink('live')
  source.addEventListener('all', (event) => take(JSON.parse(event.data), true))
  source.addEventListener('change', (event) => take(JSON.parse(event.data), false))
  source.onerror = () => {
    showLink('lost')
    // After an answer that is no stream a browser gives up.
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, 3000)
  }
}

function complain(text) {
  setText($('trouble'), text)
  clearTimeout(complain.timer)
  complain.timer = setTimeout(() => setText($('trouble'), ''), 15000)
}
function ask(verb, id) {
  const { disk } = disks.get(id)
  const [word, what] = ASK[verb]
  setText($('ask-title'), word + ' disk ' + id + '?')
  setText($('ask-where'), disk.path + ' at ' + disk.address + (disk.domain ? ', failure domain ' + disk.domain : ''))
  setText($('ask-what'), what)
  setText($('ask-yes'), verb === 'terminate' ? 'Terminate for ever' : word)
  setClass($('ask-yes'), verb === 'terminate' ? 'primary danger' : 'primary')
  $('ask').onclose = () => {
    if ($('ask').returnValue === 'yes') send(verb, id)
  }
  $('ask').returnValue = ''
  $('ask').showModal()
  $(verb === 'terminate' ? 'ask-no' : 'ask-yes').focus()
}
async function send(verb, id) {
  const failed = 'Cannot ' + verb + ' disk ' + id + ': '
  let answer
  try {
    const headers = { 'content-type': 'application/json' }
    answer = await fetch('/api/v1/disks/' + id + '/' + verb, { method: 'POST', headers, body: '{}' })
  } catch {
    complain(failed + 'the registry does not answer')
    return
  }
  const body = await answer.json().catch(() => ({}))
  if (!answer.ok) {
    complain(body.message ? body.message + '. ' + (body.hint || '') : failed + answer.status)
    return
  }
  const known = disks.get(id)
  if (known) known.disk = body.disk
  showDisks()
  // What had the focus may be gone from the row.
  if (document.activeElement === document.body) {
    const row = known && known.parts && known.parts.row
    const next = row && (row.querySelector('button') || $('filter'))
    if (next) next.focus()
  }
}

$('filter').oninput = () => { if (cluster) showDisks() }
$('more').onclick = () => { shownAll = true; showDisks() }
setInterval(() => {
  if (!cluster || document.hidden) return
  for (const { disk, parts } of disks.values()) if (parts && parts.row.isConnected) showTime(parts.time, disk.lastHeard)
  showProcesses()
}, 1000)
follow()
`
