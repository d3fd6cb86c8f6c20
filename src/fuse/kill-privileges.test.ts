import assert from 'node:assert/strict'
import { test } from 'node:test'
import { modeWithoutPrivileges } from './kill-privileges.ts'

test('the bits that go are set-user-id, and set-group-id where the group may execute', () => {
  assert.equal(modeWithoutPrivileges(0o106755), 0o100755)
  assert.equal(modeWithoutPrivileges(0o104644), 0o100644)
  assert.equal(modeWithoutPrivileges(0o102674), 0o100674)
  // Without group execution the bit means mandatory locking.
  assert.equal(modeWithoutPrivileges(0o102644), 0o102644)
  assert.equal(modeWithoutPrivileges(0o101777), 0o101777)
})

test('directories keep theirs', () => {
  assert.equal(modeWithoutPrivileges(0o046777), 0o046777)
})
