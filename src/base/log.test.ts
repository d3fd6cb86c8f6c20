/** What a line says of an error. */
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { OperationError } from './errors.ts'
import { logger, logsToFile, logToFile, logToStderr } from './log.ts'

const scratch = mkdtempSync(join(tmpdir(), 'eider-log-'))
after(() => rmSync(scratch, { recursive: true }))

test('an error is told once, whatever its cause repeats, with the stacks of both', () => {
  const file = join(scratch, 'log')
  assert.equal(logsToFile(), false)
  logToFile(file)
  assert.equal(logsToFile(), true)
  const cause = new Error('connect ECONNREFUSED 127.0.0.1:9')
  const message = `Cannot open bucket "b": ${cause.message}`
  logger('test').warn({ err: new OperationError('STORE_UNAVAILABLE', message, { cause }) }, 'failed')
  logToStderr()
  const { err } = JSON.parse(readFileSync(file, 'utf8')) as { err: Record<string, string> }
  assert.equal(err['message'], message)
  assert.equal(err['type'], 'OperationError')
  assert.equal(err['code'], 'STORE_UNAVAILABLE')
  assert.match(err['stack'] ?? '', /Cannot open bucket.*\n[^]*caused by: Error: connect ECONNREFUSED/)
})
