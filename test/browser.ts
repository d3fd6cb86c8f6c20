/**
 * A headless Chromium that a test looks at a page with, driven by its DevTools protocol over a pipe: opens pages, asks them, clicks, presses
 * keys, takes screenshots, and notes what they complain of.
 */
import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'

/** Debian's package of that name. */
const PROGRAM = 'chromium-headless-shell'
/** Far more than anything on a page takes, on a busy machine too. */
const PATIENCE_MS = 30_000
const LOOK_MS = 25

export interface Viewport {
  readonly width: number
  readonly height: number
  readonly isPhone?: boolean
  readonly isDark?: boolean
}

interface Reply {
  readonly id?: number
  readonly sessionId?: string
  readonly method?: string
  readonly params?: Readonly<Record<string, unknown>>
  readonly result?: Readonly<Record<string, unknown>>
  readonly error?: { readonly message: string }
}
type Params = Readonly<Record<string, unknown>>

export function hasBrowser(): boolean {
  return spawnSync(PROGRAM, ['--version'], { stdio: 'ignore' }).status === 0
}

export class Browser {
  readonly #waiting = new Map<number, { resolve: (result: Params) => void; reject: (error: Error) => void }>()
  readonly #listeners = new Map<string, (reply: Reply) => void>()
  readonly #input: Writable
  readonly #end: () => Promise<void>
  #last = 0

  private constructor(input: Writable, output: Readable, end: () => Promise<void>) {
    this.#input = input
    this.#end = end
    let rest = ''
    output.setEncoding('utf8').on('data', (chunk: string) => {
      const parts = (rest + chunk).split('\0')
      rest = parts.pop() ?? ''
      for (const part of parts) this.#take(JSON.parse(part) as Reply)
    })
  }

  static async start(): Promise<Browser> {
    const profile = mkdtempSync(join(tmpdir(), 'eider-browser-'))
    // No sandbox, as tests run as root in containers; the page is our own.
    const args = [
      '--remote-debugging-pipe',
      `--user-data-dir=${profile}`,
      '--no-sandbox',
      '--disable-gpu',
      '--no-first-run',
    ]
    const child = spawn(PROGRAM, [...args, '--disable-dev-shm-usage', '--hide-scrollbars', 'about:blank'], {
      stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
    })
    const ended = new Promise<void>((resolve) => {
      child.on('exit', () => resolve())
    })
    const browser = new Browser(child.stdio[3] as Writable, child.stdio[4] as Readable, async () => {
      // Told to, it ends its own processes, too; they would outlive it where it is killed.
      await Promise.race([browser.send('Browser.close', {}).catch(() => undefined), ended])
      const patience = setTimeout(() => child.kill('SIGKILL'), PATIENCE_MS)
      await ended
      clearTimeout(patience)
      for (const stream of child.stdio) stream?.destroy()
      rmSync(profile, { recursive: true, force: true, maxRetries: 5 })
    })
    await browser.send('Browser.getVersion', {})
    return browser
  }

  async open(url: string, viewport: Viewport): Promise<Page> {
    const { browserContextId } = await this.send('Target.createBrowserContext', {})
    const { targetId } = await this.send('Target.createTarget', { url: 'about:blank', browserContextId })
    const { sessionId } = await this.send('Target.attachToTarget', { targetId, flatten: true })
    const page = new Page(this, String(sessionId))
    this.#listeners.set(String(sessionId), (reply) => page.told(reply.method ?? '', reply.params ?? {}))
    await page.begin(url, viewport)
    return page
  }

  send(method: string, params: Params, sessionId?: string): Promise<Params> {
    const id = ++this.#last
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`the browser did not answer ${method}`)), PATIENCE_MS)
      this.#waiting.set(id, {
        resolve: (result) => {
          clearTimeout(timer)
          resolve(result)
        },
        reject: (error) => {
          clearTimeout(timer)
          reject(error)
        },
      })
      this.#input.write(
        `${JSON.stringify({ id, method, params, ...(sessionId === undefined ? {} : { sessionId }) })}\0`,
      )
    })
  }

  async close(): Promise<void> {
    await this.#end()
    for (const { reject } of this.#waiting.values()) reject(new Error('the browser has ended'))
  }

  #take(reply: Reply): void {
    if (reply.id === undefined) return this.#listeners.get(reply.sessionId ?? '')?.(reply)
    const waiting = this.#waiting.get(reply.id)
    this.#waiting.delete(reply.id)
    if (reply.error === undefined) waiting?.resolve(reply.result ?? {})
    else waiting?.reject(new Error(reply.error.message))
  }
}

export class Page {
  /** What it has complained of: exceptions, errors in the console, what its policy refused. */
  readonly complaints: string[] = []
  readonly #browser: Browser
  readonly #session: string

  constructor(browser: Browser, session: string) {
    this.#browser = browser
    this.#session = session
  }

  async begin(url: string, { width, height, isPhone = false, isDark = false }: Viewport): Promise<void> {
    await this.#send('Runtime.enable', {})
    await this.#send('Log.enable', {})
    await this.#send('Page.enable', {})
    await this.#send('Emulation.setDeviceMetricsOverride', {
      width,
      height,
      deviceScaleFactor: isPhone ? 2 : 1,
      mobile: isPhone,
    })
    const features = [{ name: 'prefers-color-scheme', value: isDark ? 'dark' : 'light' }]
    await this.#send('Emulation.setEmulatedMedia', { features })
    await this.#send('Page.navigate', { url })
    await this.until(`location.href !== 'about:blank' && document.readyState === 'complete'`)
  }

  told(method: string, params: Params): void {
    if (method === 'Runtime.exceptionThrown') this.complaints.push(JSON.stringify(params['exceptionDetails']))
    if (method === 'Runtime.consoleAPICalled' && params['type'] === 'error') {
      this.complaints.push(JSON.stringify(params['args']))
    }
    if (method === 'Log.entryAdded') {
      const { level, text, url } = params['entry'] as { level: string; text: string; url?: string }
      if (level === 'error') this.complaints.push(`${text} ${url ?? ''}`)
    }
  }

  /** The value of an expression there. */
  async ask<T>(expression: string): Promise<T> {
    const { result, exceptionDetails } = await this.#send('Runtime.evaluate', {
      expression,
      returnByValue: true,
      awaitPromise: true,
    })
    if (exceptionDetails !== undefined) throw new Error(JSON.stringify(exceptionDetails))
    return (result as { value: T }).value
  }

  /** Waits until the expression is true there. */
  async until(expression: string): Promise<void> {
    const end = performance.now() + PATIENCE_MS
    while (!(await this.ask<boolean>(`Boolean(${expression})`))) {
      if (performance.now() > end) {
        const text = await this.ask<string>('document.body.innerText')
        throw new Error(`the page never came to ${expression}\n${text}\n${this.complaints.join('\n')}`)
      }
      await new Promise((resolve) => {
        setTimeout(resolve, LOOK_MS)
      })
    }
  }

  /** Where people would: at the middle of what the selector finds, which must be what is there. */
  async click(selector: string): Promise<void> {
    const [x, y] = await this.ask<[number, number]>(`(() => {
      const node = document.querySelector(${JSON.stringify(selector)})
      node.scrollIntoView({ block: 'center' })
      const { x, y, width, height } = node.getBoundingClientRect()
      const top = document.elementFromPoint(x + width / 2, y + height / 2)
      if (top !== node && !node.contains(top)) throw new Error('something lies over ' + ${JSON.stringify(selector)})
      return [x + width / 2, y + height / 2]
    })()`)
    for (const type of ['mousePressed', 'mouseReleased']) {
      await this.#send('Input.dispatchMouseEvent', { type, x, y, button: 'left', clickCount: 1 })
    }
  }

  async press(key: 'Tab' | 'Enter' | 'Escape'): Promise<void> {
    const windowsVirtualKeyCode = { Tab: 9, Enter: 13, Escape: 27 }[key]
    const text = key === 'Enter' ? { text: '\r' } : {}
    await this.#send('Input.dispatchKeyEvent', { type: 'keyDown', key, code: key, windowsVirtualKeyCode, ...text })
    await this.#send('Input.dispatchKeyEvent', { type: 'keyUp', key, code: key, windowsVirtualKeyCode })
  }

  async type(text: string): Promise<void> {
    await this.#send('Input.insertText', { text })
  }

  /** The whole page as PNG. */
  async screenshot(): Promise<Buffer> {
    const { data } = await this.#send('Page.captureScreenshot', { format: 'png', captureBeyondViewport: true })
    return Buffer.from(String(data), 'base64')
  }

  #send(method: string, params: Params): Promise<Params> {
    return this.#browser.send(method, params, this.#session)
  }
}
