/**
 * What the coordinator has under way: names and directories that may look half done on the shards, since they are. When it runs again, it finishes
 * them.
 */
import { numberOfKey } from '#cluster/journal/keys.ts'
import { after } from '#cluster/journal/keys.ts'
import type { StateReader } from '#cluster/journal/state.ts'
import { TRANSACTIONS, transactionRecord, type TransactionId } from '#cluster/coordinator/records.ts'
import { transactionOf } from '#cluster/coordinator/turn.ts'
import { isInodeId, type InodeId } from '#cluster/inode-id.ts'
import { decode } from '#cluster/wire/codec.ts'

export class OpenTransactions {
  readonly #inodes = new Set<InodeId>()
  #count = 0

  /** @throws WIRE_MALFORMED where one is damaged */
  constructor(coordinator: StateReader | undefined) {
    coordinator?.range(TRANSACTIONS, after(TRANSACTIONS), (key, value) => {
      const record = decode(transactionRecord, value)
      const { request } = transactionOf(numberOfKey(key, TRANSACTIONS.length) as TransactionId, record)
      for (const each of [...Object.values(request as object), record.inode] as unknown[]) {
        if (typeof each === 'number' && isInodeId(each)) this.#inodes.add(each)
      }
      this.#count++
      return true
    })
  }

  get count(): number {
    return this.#count
  }

  /** Whether one of them is about each of the inodes. */
  concern(...inodes: readonly InodeId[]): boolean {
    return inodes.every((inode) => this.#inodes.has(inode))
  }
}
