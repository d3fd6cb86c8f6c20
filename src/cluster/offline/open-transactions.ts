/**
 * What the coordinator has under way: names and directories that may look half done on the shards, since they are. When it runs again, it finishes
 * them.
 */
import { isOperationError } from '#base/errors.ts'
import { after, numberOfKey } from '#cluster/journal/keys.ts'
import type { StateReader } from '#cluster/journal/state.ts'
import {
  TRANSACTIONS,
  transactionRecord,
  type TransactionId,
  type TransactionRecord,
} from '#cluster/coordinator/records.ts'
import { transactionOf } from '#cluster/coordinator/turn.ts'
import { isInodeId, type InodeId } from '#cluster/inode-id.ts'
import { decode } from '#cluster/wire/codec.ts'

import type { OnProblem } from './problem.ts'

export class OpenTransactions {
  readonly #inodes = new Set<InodeId>()
  #count = 0

  constructor(coordinator: StateReader | undefined, onProblem: OnProblem) {
    coordinator?.range(TRANSACTIONS, after(TRANSACTIONS), (key, value) => {
      const id = numberOfKey(key, TRANSACTIONS.length) as TransactionId
      this.#count++
      try {
        this.#add(id, decode(transactionRecord, value))
      } catch (error) {
        if (!isOperationError(error)) throw error
        const detail = `the record of transaction ${id} is damaged: ${error.message}`
        onProblem({ severity: 'lost', where: 'coordinator', detail })
      }
      return true
    })
  }

  #add(id: TransactionId, record: TransactionRecord): void {
    const { request } = transactionOf(id, record)
    for (const each of [...Object.values(request as object), record.inode] as unknown[]) {
      if (typeof each === 'number' && isInodeId(each)) this.#inodes.add(each)
    }
  }

  get count(): number {
    return this.#count
  }

  /** Whether one of them is about each of the inodes. */
  concern(...inodes: readonly InodeId[]): boolean {
    return inodes.every((inode) => this.#inodes.has(inode))
  }
}
