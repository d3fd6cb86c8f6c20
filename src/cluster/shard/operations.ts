/** What writes are, by their names in a table of messages. */
import type { Message } from '#cluster/wire/message.ts'

import type { Step } from './step.ts'

/** Checks all before it changes anything; refuses by throwing an operating error. */
export type Operation<M> = M extends Message<infer Q, infer R> ? (step: Step, request: Q) => R : never
export type OperationsOf<T, K extends keyof T> = { readonly [N in K]: Operation<T[N]> }
