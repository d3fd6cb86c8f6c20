/** SIGUSR2 steps through the log levels of a process that serves, so that it can be watched without a restart. */
import { logger, stepLogLevel } from '#base/log.ts'

const log = logger('cli')

/** From here on; once a process. */
export function stepLogLevelOnSignal(): void {
  process.on('SIGUSR2', () => {
    const level = stepLogLevel()
    // Not `level`, which each line has for its own.
    log.info({ logLevel: level }, 'log level changed by SIGUSR2')
  })
}
