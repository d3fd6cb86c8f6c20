/** A planted defect: a shard that takes each request for a new one, however often it was sent. */
import type { Answer } from '#cluster/journal/sessions.ts'
import type { StateBatch } from '#cluster/journal/state.ts'
import type { ShardEntry } from '#cluster/shard/shard-entry.ts'
import { ShardMachine } from '#cluster/shard/shard-machine.ts'

export class ForgetfulShard extends ShardMachine {
  override apply(batch: StateBatch, entry: ShardEntry): Answer {
    // No two entries have the same time.
    return super.apply(batch, { ...entry, header: { ...entry.header, client: entry.timeUs } })
  }
}
