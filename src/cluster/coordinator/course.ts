/**
 * What a transaction is made of: steps, each asked of one shard, in an order that depends on the answers. A course is pure: it
 * says what to ask next, and the machine (`coordinator-machine.ts`) has it asked.
 *
 *   step --answered--> next step ... --> end: the reply
 *    '--refused--> a step that undoes what was done ... --> end: the refusal
 */
import type { ErrorCode } from '#base/errors.ts'
import type { InodeId } from '#cluster/inode-id.ts'
import type { StateBatch, StateReader } from '#cluster/journal/state.ts'
import { decode, encode, type ValueOf } from '#cluster/wire/codec.ts'
import type { AnyMessage, Message } from '#cluster/wire/message.ts'

import type { Variables } from './records.ts'

/** The name of the next step. */
export type Next = string
export const END: Next = ''

/** What is to be asked, of the shard that has the inode. */
export interface Asking {
  readonly about: InodeId
  readonly message: AnyMessage
  readonly request: unknown
}

export interface CourseStep {
  ask(request: unknown, variables: Variables): Asking
  /** @throws WIRE_MALFORMED */
  answered(variables: Variables, reply: Buffer): Next
  readonly refused: Next
  /** Codes that are as good as done. */
  readonly forgiven: readonly ErrorCode[]
  /** The steps before it have made sure that it can be done: a refusal is a defect. */
  readonly isSure: boolean
}

interface StepParts<Q, A, R> {
  readonly message: Message<A, R>
  about(request: Q, variables: Variables): InodeId
  request(request: Q, variables: Variables): A
  answered(variables: Variables, reply: R): Next
  readonly refused: Next
  readonly forgiven?: readonly ErrorCode[]
  readonly isSure?: boolean
}

/** For the requests of one message: `Q` is what such a request asks. */
export function stepsOf<Q>() {
  return <A, R>(parts: StepParts<Q, A, R>): CourseStep => ({
    ask: (request, variables) => ({
      about: parts.about(request as Q, variables),
      message: parts.message,
      request: parts.request(request as Q, variables),
    }),
    answered: (variables, reply) => parts.answered(variables, decode(parts.message.reply, reply)),
    refused: parts.refused,
    forgiven: parts.forgiven ?? [],
    isSure: parts.isSure ?? false,
  })
}

export interface Course {
  readonly message: AnyMessage
  /** Refuses what no state would allow. @throws OperationError */
  check(request: unknown): void
  /** The directories that it changes, or that must stay as they are meanwhile, each once. */
  queues(request: unknown): readonly number[]
  /** When it is first in its queues: the first step. @throws OperationError what refuses it before that */
  begin(request: unknown, variables: Variables, state: StateReader, newDirectory: () => InodeId): Next
  readonly steps: Readonly<Record<string, CourseStep>>
  /** All is done. @return the reply */
  end(request: unknown, variables: Variables, batch: StateBatch): Buffer
}

interface CourseParts<Q, R> {
  check(request: Q): void
  queues(request: Q): readonly number[]
  begin(request: Q, variables: Variables, state: StateReader, newDirectory: () => InodeId): Next
  readonly steps: Readonly<Record<string, CourseStep>>
  end(request: Q, variables: Variables, batch: StateBatch): R
}

export function course<Q, R>(message: Message<Q, R>, parts: CourseParts<Q, R>): Course {
  return {
    message,
    check: (request) => parts.check(request as Q),
    queues: (request) => parts.queues(request as Q),
    begin: (request, variables, state, newDirectory) => parts.begin(request as Q, variables, state, newDirectory),
    steps: parts.steps,
    end: (request, variables, batch) => encode(message.reply, parts.end(request as Q, variables, batch)),
  }
}

/** What a request of the message asks. */
export type RequestOf<M extends { readonly request: unknown }> = ValueOf<M['request']>
