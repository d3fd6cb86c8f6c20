/** What a message of the protocol is: its kind, the forms of request and reply, and who may send it. The tables are beside those who answer them. */
import { assert } from '#base/assert.ts'

import type { Codec, StructCodec } from './codec.ts'

export interface Message<Q = unknown, R = unknown> {
  /** Unique within its table. */
  readonly kind: number
  readonly name: string
  readonly request: Codec<Q>
  readonly reply: Codec<R>
  /** Writes go to the journal, and their request ids are remembered. */
  readonly does: 'read' | 'write'
  /** Only processes of the cluster may ask for it. */
  readonly isInternal: boolean
  /** For docs/formats/wire.md. */
  readonly meaning: string
}

interface Definition<Q, R> {
  readonly kind: number
  readonly request: StructCodec<Q>
  readonly reply: StructCodec<R>
  readonly does: 'read' | 'write'
  readonly isInternal?: boolean
  readonly meaning: string
}

export function message<Q, R>(name: string, definition: Definition<Q, R>): Message<Q, R> {
  return { name, isInternal: false, ...definition }
}

/** Of any form: what is done with one does not depend on it. */
export type AnyMessage = Message

/** The messages that one kind of process answers. */
export class MessageTable {
  readonly title: string
  readonly messages: readonly AnyMessage[]
  readonly #byKind: readonly (AnyMessage | undefined)[]

  constructor(title: string, messages: Readonly<Record<string, AnyMessage>>) {
    this.title = title
    this.messages = Object.values(messages).sort((a, b) => a.kind - b.kind)
    const byKind: (AnyMessage | undefined)[] = []
    for (const each of this.messages) {
      assert(byKind[each.kind] === undefined, 'each kind of message stands once in its table')
      byKind[each.kind] = each
    }
    this.#byKind = byKind
  }

  find(kind: number): AnyMessage | undefined {
    return this.#byKind[kind]
  }
}
