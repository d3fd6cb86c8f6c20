/** The registry's page in a browser: what it shows, what its buttons do, that it follows, and that it fits a phone and a keyboard. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { inflateSync } from 'node:zlib'

import type { DiskId } from '#cluster/block/permit.ts'

import { Browser, hasBrowser, type Page } from './browser.ts'
import { diskOf, disksOf, registerAll, type RegistryFixture, startRegistry } from './registry-fixture.ts'

const DESKTOP = { width: 1280, height: 800 }
const PHONE = { width: 360, height: 740, isPhone: true }
const ALL_WELL =
  'All 4 disks, 256 shards and the coordinator are there. Files are kept as 2+1: any one failure domain may fail.'

const scratch = mkdtempSync(join(tmpdir(), 'eider-registry-page-'))

/** Rows of a PNG as bytes with their filters, which tell how much there is to see without decoding them whole. */
function pixelsOf(png: Buffer): { readonly width: number; readonly height: number; readonly lines: readonly Buffer[] } {
  assert.equal(png.toString('latin1', 1, 4), 'PNG')
  const width = png.readUInt32BE(16)
  const height = png.readUInt32BE(20)
  const data: Buffer[] = []
  for (let at = 8; at < png.length; at += 12 + png.readUInt32BE(at)) {
    if (png.toString('latin1', at + 4, at + 8) === 'IDAT')
      data.push(png.subarray(at + 8, at + 8 + png.readUInt32BE(at)))
  }
  const raw = inflateSync(Buffer.concat(data))
  const bytes = raw.length / height
  return {
    width,
    height,
    lines: Array.from({ length: height }, (_, row) => raw.subarray(row * bytes, (row + 1) * bytes)),
  }
}

/** Keeps it for who wants to look, and sees that something is on it from top to bottom. */
async function screenshot(page: Page, name: string): Promise<void> {
  const png = await page.screenshot()
  writeFileSync(join(scratch, `${name}.png`), png)
  const { lines } = pixelsOf(png)
  const busy = (part: readonly Buffer[]): number =>
    part.filter((line) => new Set(line.subarray(1)).size > 8).length / part.length
  const third = Math.ceil(lines.length / 3)
  for (let at = 0; at < lines.length; at += third) {
    assert(busy(lines.slice(at, at + third)) > 0.1, `${name}: there is nothing from line ${at} on`)
  }
}

const row = (id: number): string => `document.querySelector('[data-disk="${id}"]')`
const statusOf = (id: number): string => `${row(id)}?.querySelector('.status').textContent`
const sentence = `document.getElementById('sentence').textContent`
const buttonsOf = (page: Page, id: number): Promise<string[]> =>
  page.ask(`[...${row(id)}.querySelectorAll('button')].map((button) => button.textContent)`)

describe(
  'the page of the registry',
  { skip: hasBrowser() ? false : 'chromium-headless-shell is not installed' },
  () => {
    let browser: Browser
    let registry: RegistryFixture
    before(async () => {
      browser = await Browser.start()
    })
    after(async () => {
      await browser.close()
      rmSync(scratch, { recursive: true, force: true })
    })
    async function withRegistry(action: () => Promise<void>): Promise<void> {
      registry = await startRegistry()
      try {
        await registerAll(registry)
        await action()
      } finally {
        await registry.close()
      }
    }

    it('shows the whole in a sentence, each disk, the shards and the coordinator', () =>
      withRegistry(async () => {
        const page = await browser.open(registry.url, DESKTOP)
        await page.until(`${sentence} === ${JSON.stringify(ALL_WELL)}`)
        const rows = await page.ask<string[][]>(
          `[...document.querySelectorAll('#disks tr')].map((row) => [...row.cells].map((cell) => cell.innerText.replace(/\\s+/g, ' ').trim()))`,
        )
        assert.deepEqual(
          rows.map((cells) => cells.filter((_, index) => index !== 5)),
          [1, 2, 3, 4].map((number) => [
            `${number} /srv/disk-${number}`,
            'ok',
            `10.0.0.${number}:8601`,
            `rack-${number}`,
            '2',
            `${80 * number} GB of 1 TB`,
            'Drain',
          ]),
        )
        assert.match(rows[0]?.[5] ?? '', /^(?:now|\d+ s ago)$/)
        assert.deepEqual(
          await page.ask(
            `[...document.querySelectorAll('#processes tr')].map((row) => row.cells[0].innerText + ': ' + row.cells[1].innerText)`,
          ),
          ['Coordinator: ok', 'Shards 0 to 127: ok', 'Shards 128 to 255: ok'],
        )
        assert.equal(
          await page.ask(`document.body.dataset.state + ' ' + document.getElementById('link-text').textContent`),
          'good Live',
        )
        await screenshot(page, 'desktop')
        const foot = await page.ask<string>(`document.querySelector('footer').innerText`)
        assert(foot.includes(`Cluster ${registry.server.cluster}`), foot)
        // Locations are told once there are two.
        assert(!(await page.ask<string>(`document.body.innerText`)).includes('hall-b'))
        await registry.heartbeat('registerCoordinator', { process: 3, address: '10.0.0.1:8620', location: 'hall-b' })
        await page.until(`document.querySelector('#processes tr').innerText.includes('hall-b')`)
        assert.deepEqual(page.complaints, [])
      }))

    it('[S166] says whose clock is off', () =>
      withRegistry(async () => {
        const page = await browser.open(registry.url, PHONE)
        const clock = { isTrusted: false, aheadMs: 3 * 86_400_000 }
        const shards = { process: 2, address: '10.0.0.2:8610', location: '', first: 128, last: 255 }
        await registry.heartbeat('registerShards', { ...shards, clock })
        const off = `[...document.querySelectorAll('#processes tr')].some((row) => row.innerText.includes('clock is off'))`
        await page.until(off)
        await page.until(
          `${sentence}.startsWith('The clock of shards 128 to 255 is 3 days ahead of that of the registry')`,
        )
        await screenshot(page, 'clock')
        await registry.heartbeat('registerShards', shards)
        await page.until(`${sentence} === ${JSON.stringify(ALL_WELL)}`)
        assert.deepEqual(page.complaints, [])
      }))

    it('drains and resumes a disk once that is confirmed, by mouse', () =>
      withRegistry(async () => {
        const page = await browser.open(registry.url, DESKTOP)
        await page.until(`${statusOf(3)} === 'ok'`)
        await page.click('[data-disk="3"] [data-verb=drain]')
        await page.until(`document.getElementById('ask').open`)
        assert.match(
          await page.ask(`document.getElementById('ask').innerText`),
          /Drain disk 3\?\s+\/srv\/disk-3 at 10\.0\.0\.3:8601, failure domain rack-3/,
        )
        await screenshot(page, 'dialog')
        await page.click('#ask-no')
        await page.until(`!document.getElementById('ask').open`)
        assert.deepEqual(registry.server.view.disk(3 as DiskId)?.record.flags, [])
        await page.click('[data-disk="3"] [data-verb=drain]')
        await page.click('#ask-yes')
        await page.until(`${statusOf(3)} === 'drained'`)
        await page.until(`${sentence}.startsWith('All 4 disks (1 drained)')`)
        assert.deepEqual(registry.server.view.disk(3 as DiskId)?.record.flags, ['no-write'])
        assert.deepEqual(await buttonsOf(page, 3), ['Resume'])
        await page.click('[data-disk="3"] [data-verb=resume]')
        await page.click('#ask-yes')
        await page.until(`${statusOf(3)} === 'ok'`)
        assert.deepEqual(registry.server.view.disk(3 as DiskId)?.record.flags, [])
        assert.deepEqual(page.complaints, [])
      }))

    it('shows a disk that falls silent or fails, and terminates it alone, by keyboard', () =>
      withRegistry(async () => {
        const page = await browser.open(registry.url, DESKTOP)
        await page.until(`${statusOf(4)} === 'ok'`)
        registry.pass(200_000)
        for (const number of [1, 2, 3]) await registry.heartbeat('registerDisks', disksOf(number))
        await registry.heartbeat('registerDisks', disksOf(2, { failure: 'EIO: the disk does not answer' }))
        await page.until(`${statusOf(4)} === 'silent' && ${statusOf(2)} === 'failed' && ${statusOf(1)} === 'ok'`)
        assert.equal(await page.ask(`document.body.dataset.state`), 'down')
        await page.until(
          `${sentence}.startsWith('1 of 4 disks has failed and 1 is silent; shards 0 to 127 and 128 to 255 are silent')`,
        )
        assert.match(await page.ask(`${row(2)}.innerText`), /EIO: the disk does not answer/)
        assert.match(await page.ask(`${row(4)}.innerText`), /3 min ago/)
        assert.deepEqual(await buttonsOf(page, 1), ['Drain'])
        assert.deepEqual(await buttonsOf(page, 4), ['Drain', 'Terminate'])
        await screenshot(page, 'troubles')

        const focused = `document.activeElement.getAttribute('aria-label') ?? document.activeElement.id`
        for (let presses = 0; (await page.ask(focused)) !== 'Terminate disk 4'; presses++) {
          assert(presses < 30, 'each button is reached by the keyboard')
          await page.press('Tab')
        }
        await page.press('Enter')
        await page.until(`document.getElementById('ask').open`)
        // What cannot be taken back is not what a hasty Enter does.
        assert.equal(await page.ask(focused), 'ask-no')
        await page.press('Escape')
        await page.until(`!document.getElementById('ask').open`)
        assert.equal(await page.ask(focused), 'Terminate disk 4')
        await page.press('Enter')
        await page.press('Tab')
        assert.equal(await page.ask(focused), 'ask-yes')
        await page.press('Enter')
        await page.until(`${statusOf(4)} === 'terminated'`)
        assert.deepEqual(await buttonsOf(page, 4), [])
        assert.deepEqual(registry.server.view.disk(4 as DiskId)?.record.flags, ['decommissioned'])
        await page.until(`${sentence}.startsWith('1 of 3 disks has failed')`)
        assert.notEqual(await page.ask(`document.activeElement.tagName`), 'BODY')
        assert.deepEqual(page.complaints, [])
      }))

    it('says why something was not done', () =>
      withRegistry(async () => {
        const page = await browser.open(registry.url, DESKTOP)
        await registry.heartbeat('registerDisks', disksOf(2, { failure: 'EIO' }))
        await page.until(`${statusOf(2)} === 'failed'`)
        await page.click('[data-disk="2"] [data-verb=terminate]')
        await page.until(`document.getElementById('ask').open`)
        await registry.heartbeat('registerDisks', disksOf(2))
        await page.click('#ask-yes')
        await page.until(`document.getElementById('trouble').textContent.includes('Cannot terminate disk 2: it works')`)
        assert.equal(registry.server.view.disk(2 as DiskId)?.record.flags.length, 0)
        // The browser notes each answer of that kind by itself.
        assert.equal(page.complaints.filter((text) => !text.includes('409')).length, 0)
      }))

    it('says that the connection is lost, and follows again once there is one', async () => {
      let first: RegistryFixture | undefined = await startRegistry()
      await registerAll(first)
      const port = Number(first.address.split(':')[1])
      const page = await browser.open(first.url, DESKTOP)
      await page.until(`${statusOf(4)} === 'ok'`)
      await first.close()
      first = undefined
      await page.until(`document.getElementById('link-text').textContent.startsWith('Connection lost')`)
      const second = await startRegistry(undefined, port)
      try {
        await second.heartbeat('registerDisks', disksOf(5))
        await page.until(`document.getElementById('link-text').textContent === 'Live' && ${statusOf(5)} === 'ok'`)
        assert.equal(await page.ask(`document.querySelectorAll('#disks tr').length`), 1)
      } finally {
        await second.close()
      }
    })

    it('fits a phone, in the dark too', () =>
      withRegistry(async () => {
        await registry.heartbeat('registerDisks', disksOf(2, { failure: 'EIO: the disk does not answer any more' }))
        await registry.heartbeat('registerDisks', {
          ...disksOf(5),
          disks: [
            diskOf(9_007_199_254_740_991, {
              capacityBytes: 2e9,
              blocks: 5,
              key: Buffer.alloc(32, 9),
              usedBytes: 1e9,
              freeBytes: 1e9,
              path: `/srv/${'a-very-long-name/'.repeat(8)}`,
              domain: 'rack-in-a-far-away-hall',
            }),
          ],
        })
        for (const isDark of [false, true]) {
          const page = await browser.open(registry.url, { ...PHONE, isDark })
          await page.until(`${statusOf(2)} === 'failed'`)
          assert.equal(await page.ask(`document.documentElement.scrollWidth`), 360)
          const small = await page.ask<string[]>(
            `[...document.querySelectorAll('button, input')].filter((each) => each.offsetParent && each.offsetHeight < 40).map((each) => each.outerHTML)`,
          )
          assert.deepEqual(small, [])
          const cut = await page.ask<string[]>(
            `[...document.querySelectorAll('td *')].filter((each) => each.getBoundingClientRect().right > 360).map((each) => each.textContent)`,
          )
          assert.deepEqual(cut, [])
          await screenshot(page, isDark ? 'phone-dark' : 'phone')
          await page.click('[data-disk="1"] [data-verb=drain]')
          await page.until(`document.getElementById('ask').open`)
          assert(await page.ask(`document.getElementById('ask').getBoundingClientRect().right <= 360`))
          assert.deepEqual(page.complaints, [])
        }
      }))

    it('has a name for each control and heading, and reads the sentence aloud', () =>
      withRegistry(async () => {
        const page = await browser.open(registry.url, DESKTOP)
        await page.until(`${statusOf(4)} === 'ok'`)
        assert.deepEqual(
          await page.ask(
            `[...document.querySelectorAll('button, input')].filter((each) => !(each.getAttribute('aria-label') || each.textContent.trim() || each.labels?.[0]?.textContent.trim())).filter((each) => !each.closest('dialog') && !each.hidden).map((each) => each.outerHTML)`,
          ),
          [],
        )
        assert.equal(await page.ask(`document.querySelectorAll('h1').length`), 1)
        assert.equal(await page.ask(`document.getElementById('sentence').getAttribute('aria-live')`), 'polite')
        assert.equal(await page.ask(`document.getElementById('trouble').getAttribute('role')`), 'alert')
        // Words are as dark against what they lie on as readers with weak eyes need (WCAG AA: 4.5).
        for (const isDark of [false, true]) {
          const seen = await browser.open(registry.url, { ...DESKTOP, isDark })
          await seen.until(`${statusOf(4)} === 'ok'`)
          assert.deepEqual(await seen.ask(WEAK_CONTRASTS), [])
        }
      }))

    it('shows thousands of disks, those that the filter asks for alone, and keeps the focus while they change', () =>
      withRegistry(async () => {
        for (let process = 0; process < 5; process++) {
          const disks = Array.from({ length: 400 }, (_, index) =>
            diskOf(10_000 + process * 400 + index, {
              key: Buffer.alloc(32, 1),
              usedBytes: 1,
              freeBytes: 1e12,
              capacityBytes: 1e12,
              blocks: 1,
              domain: `hall-${process}`,
            }),
          )
          await registry.heartbeat('registerDisks', {
            process: 50 + process,
            address: `10.1.0.${process}:1`,
            location: '',
            disks,
          })
        }
        const page = await browser.open(registry.url, DESKTOP)
        await page.until(`document.getElementById('disk-count').textContent === '2004'`)
        assert.equal(await page.ask(`document.querySelectorAll('#disks tr').length`), 400)
        await page.click('#filter')
        await page.type('hall-3 ok')
        await page.until(`document.getElementById('disk-count').textContent === '400 of 2004'`)
        await page.ask(`document.querySelector('#disks tr:nth-child(7) button').focus()`)
        const focused = await page.ask(`document.activeElement.getAttribute('aria-label')`)
        await registry.heartbeat('registerDisks', disksOf(1, { failure: 'EIO' }))
        await page.until(`${sentence}.startsWith('1 of 2004')`)
        assert.equal(await page.ask(`document.activeElement.getAttribute('aria-label')`), focused)
        await page.click('#filter')
        await page.ask(`document.getElementById('filter').select()`)
        await page.type('nowhere')
        await page.until(`document.getElementById('no-disks').textContent === 'No disk is like that.'`)
        assert.deepEqual(page.complaints, [])
      }))
  },
)

/** Texts on the page whose colour is too near to what is behind it. */
const WEAK_CONTRASTS = `(() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true })
  const rgb = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); return canvas.getImageData(0, 0, 1, 1).data }
  const light = (colour) => { const [r, g, b] = [...rgb(colour)].map((value) => { const part = value / 255; return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4 }); return 0.2126 * r + 0.7152 * g + 0.0722 * b }
  const behind = (node) => { for (let at = node; at; at = at.parentElement) { const colour = getComputedStyle(at).backgroundColor; if (rgb(colour)[3] === 255) return colour } return 'white' }
  const weak = []
  for (const node of document.querySelectorAll('body *')) {
    if (!node.offsetParent || ![...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim())) continue
    const [a, b] = [light(getComputedStyle(node).color), light(behind(node))].sort((x, y) => y - x)
    const contrast = (a + 0.05) / (b + 0.05)
    if (contrast < 4.5) weak.push(node.textContent.trim() + ' ' + contrast.toFixed(2))
  }
  return weak
})()`
