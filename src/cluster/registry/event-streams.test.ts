import assert from 'node:assert/strict'
import { EventEmitter } from 'node:events'
import type { ServerResponse } from 'node:http'
import { describe, it } from 'node:test'

import type { DiskId } from '#cluster/block/permit.ts'
import type { ClusterId } from '#cluster/cluster-id.ts'
import type { Clock } from '#cluster/surroundings.ts'

import { EventStreams } from './event-streams.ts'
import type { DiskRecord } from './registry-records.ts'
import { RegistryView } from './registry-view.ts'

/** A browser that reads when it is told to. */
class Reader extends EventEmitter {
  readonly socket = { setTimeout: () => undefined }
  readonly destroyed = false
  readonly written: string[] = []
  writableLength = 0

  writeHead(): this {
    return this
  }

  write(text: string): boolean {
    this.written.push(text)
    return true
  }

  destroy(): void {
    this.emit('close')
  }

  get events(): { readonly event: string; readonly ids: readonly number[] }[] {
    return this.written.flatMap((text) => {
      const [, event, data = ''] = /^event: (\w+)\ndata: (.*)\n\n$/.exec(text) ?? []
      if (event === undefined) return []
      const { disks } = JSON.parse(data) as { disks: { id: number }[] }
      return [{ event, ids: disks.map(({ id }) => id) }]
    })
  }
}

interface Setting {
  readonly view: RegistryView
  readonly streams: EventStreams
  readonly reader: Reader
  readonly timers: Set<() => void>
  readonly run: () => void
}

function setting(): Setting {
  const timers = new Set<() => void>()
  const clock: Clock = {
    nowMs: () => 0,
    monotonicMs: () => 0,
    sleptMs: () => 0,
    soon: (action) => action(),
    after(_, action) {
      timers.add(action)
      return () => timers.delete(action)
    },
  }
  const view = new RegistryView(1000, () => ({ monotonicMs: 0, ms: 0 }))
  const streams = new EventStreams('c'.repeat(32) as ClusterId, view, clock)
  const reader = new Reader()
  streams.add(reader as unknown as ServerResponse, {})
  const run = (): void => {
    for (const action of [...timers]) {
      timers.delete(action)
      action()
    }
  }
  return { view, streams, reader, timers, run }
}

function disk(id: number): DiskRecord {
  const facts = { class: 2, domain: 'a', path: '/', fileSystem: 0, process: 1, address: 'a:1', location: '' }
  return { ...facts, disk: id as DiskId, key: Buffer.alloc(32), flags: [], firstSeenMs: 0 }
}

describe('EventStreams', () => {
  it('tells what comes close together at once, and only what has changed', () => {
    const { view, reader, run } = setting()
    assert.deepEqual(reader.events, [{ event: 'all', ids: [] }])
    view.take({ disks: [disk(1), disk(2)], refused: [] })
    view.take({ disks: [disk(3)], refused: [] })
    run()
    view.take({ disks: [{ ...disk(2), flags: ['no-write'] }], refused: [] })
    run()
    run()
    assert.deepEqual(reader.events.slice(1), [
      { event: 'change', ids: [1, 2, 3] },
      { event: 'change', ids: [2] },
    ])
  })

  it('writes nothing to who does not read, and tells all that it missed once it does', () => {
    const { view, reader, run } = setting()
    reader.writableLength = 2 * 1024 ** 2
    const before = reader.written.length
    for (let id = 1; id <= 20; id++) {
      view.take({ disks: [disk(id)], refused: [] })
      run()
    }
    assert.equal(reader.written.length, before)
    reader.writableLength = 0
    reader.emit('drain')
    run()
    assert.deepEqual(reader.events.at(-1)?.ids.length, 20)
  })

  it('leaves no timer behind when the last one has gone', () => {
    const { view, streams, reader, timers } = setting()
    view.take({ disks: [disk(1)], refused: [] })
    assert(timers.size > 0)
    reader.emit('close')
    assert.equal(timers.size, 0)
    view.take({ disks: [disk(2)], refused: [] })
    assert.equal(timers.size, 0)
    streams.close()
  })
})
