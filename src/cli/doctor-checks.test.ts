/** What `eider doctor` finds and tells, and what it never tells. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { examine } from './doctor-checks.ts'

test('everything is looked at, what is wanting has an advice, and secrets stay secret', async () => {
  const secret = 'the-secret-itself'
  process.env['AWS_ACCESS_KEY_ID'] = 'AKIDTEST'
  process.env['AWS_SECRET_ACCESS_KEY'] = secret
  const findings = await examine()
  const subjects = findings.map(({ subject }) => subject)
  for (const subject of ['Node', 'Linux', '/dev/fuse', 'a mount', 'passthrough', 'fanotify', 'clock', 'credentials']) {
    assert.ok(subjects.includes(subject), subject)
  }
  for (const { subject, state, advice } of findings) {
    if (state !== 'ok') assert.notEqual(advice, undefined, `${subject} is ${state} and nothing is advised`)
  }
  const credentials = findings.find(({ subject }) => subject === 'credentials')
  assert.equal(credentials?.state, 'ok')
  assert.match(credentials.found, /AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY/)
  assert.ok(!JSON.stringify(findings).includes(secret))
})
