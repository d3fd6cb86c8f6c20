/** Guesses what was meant by a misspelled word. */

/** The candidate nearest to `word`, when it is near enough to be a slip of the fingers. */
export function suggest(word: string, candidates: Iterable<string>): string | undefined {
  let best: string | undefined
  let bestDistance = Math.max(1, Math.floor(word.length / 3)) + 1
  for (const candidate of candidates) {
    // Of two that are as near, the one that begins alike: `umount` means `unmount` rather than `mount`.
    const distance = editDistance(word, candidate) - (word[0] === candidate[0] ? 0.5 : 0)
    if (distance < bestDistance) {
      best = candidate
      bestDistance = distance
    }
  }
  return best
}

/** ` (did you mean X?)`, or nothing. */
export function suggestionText(word: string, candidates: Iterable<string>): string {
  const meant = suggest(word, candidates)
  return meant === undefined ? '' : `; did you mean ${meant}?`
}

/** Levenshtein's distance: letters put in, left out or exchanged. */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const current = [i]
    for (let j = 1; j <= b.length; j++) {
      const exchanged = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)
      current.push(Math.min(exchanged, (previous[j] ?? 0) + 1, (current[j - 1] ?? 0) + 1))
    }
    previous = current
  }
  return previous[b.length] ?? 0
}
