/**
 * When a command that stays should end: on SIGINT, SIGTERM or SIGHUP, or when the process that started it died. The
 * first stops it in order; a second SIGINT or SIGTERM, from somebody who will not wait, ends the process at once.
 */
import { LET_GO } from './readiness.ts'

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
/** One press of Ctrl-C can arrive twice, from the terminal and from a parent that passes it on. */
const SAME_PRESS_MS = 500

/** Fires once when this process should end; its reason is a text saying why. Call it before anything that takes long. */
export function stopSignal(): AbortSignal {
  const controller = new AbortController()
  let firstAt: number | undefined
  for (const name of SIGNALS) {
    process.on(name, () => {
      if (firstAt === undefined) {
        firstAt = performance.now()
        controller.abort(`${name} received`)
      } else if (name !== 'SIGHUP' && performance.now() - firstAt > SAME_PRESS_MS) {
        process.exit(1)
      }
    })
  }
  let letGo = false
  process.on('message', (message) => {
    if (message === LET_GO) letGo = true
  })
  process.on('disconnect', () => {
    if (!letGo) controller.abort('the process that started this one has ended')
  })
  return controller.signal
}

/** Resolves when the signal fires. */
export function stopped(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}
