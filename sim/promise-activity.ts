/**
 * Whether promises have done anything: how the simulator knows that code which waits has gone as far as it can get. Real code uses
 * promises, and there is no way to ask whether one of them still has something to run; but V8 tells of each that is made, settled
 * or goes on. Where nothing of that has happened between two turns of the queue of microtasks, nothing is left in it.
 *
 * It costs 50 ns where nothing has happened and no turn of the event loop. It is one counter for the whole process, since V8's hooks
 * are; who reads it only compares, so whatever else runs in the process makes a world look once more and changes nothing in it.
 */
import { promiseHooks } from 'node:v8'

let count = 0
let isCounting = false

const counted = (): void => {
  count++
}

/** Has to be called before the promises are made that matter; does nothing more when called again. */
export function countPromises(): void {
  if (isCounting) return
  isCounting = true
  promiseHooks.createHook({ init: counted, before: counted, settled: counted })
}

/** Another number than before where promises did anything in between. */
export function promiseActivity(): number {
  return count
}
