/** For listings of whole trees over flat keys: the directories that a key lies in, which may have no key of their own. */

/**
 * The sort keys of the directories that `key` lies in or is, outermost first, that are not among those that `shown` lies in or
 * is: in an order of keys, those that come between the two.
 */
export function* directoriesEntered(key: string, shown: string): Generator<string> {
  for (let slash = key.indexOf('/'); slash !== -1; slash = key.indexOf('/', slash + 1)) {
    const directory = key.slice(0, slash + 1)
    if (!shown.startsWith(directory)) yield directory
  }
}
