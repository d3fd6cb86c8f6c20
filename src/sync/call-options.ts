/** What goes with a call, of options that hold more. */
import type { CallOptions } from '#store/store.ts'

/** The signal alone, and no key for one that is not there. */
export function callOptions({ signal }: { readonly signal?: AbortSignal | undefined }): CallOptions {
  return signal === undefined ? {} : { signal }
}
