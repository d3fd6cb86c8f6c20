/** How a scenario of syncs is made and shown: figures taken in turns, and one line for each comparison. */
import type { BenchRow } from '#bench/table.ts'

export interface Run {
  /** Removed after the scenario. */
  readonly scratch: string
}

export interface Scenario {
  readonly name: string
  readonly run: (run: Run) => Promise<BenchRow[]>
}

export interface Against {
  readonly name: string
  readonly unit: string
  readonly eider: number
  /** The peer's figure, undefined where it is not installed; or the limit. */
  readonly other: number | undefined
  /** What stands for the figure of a peer that is installed and has none. */
  readonly missing?: string
  /** Who or what that is. */
  readonly otherName: string
  readonly better: 'more' | 'less'
  /** Of the ratio; none where a row only tells. */
  readonly target?: number
  readonly note?: string
}

/** A line of the table. */
export function rowOf({ name, unit, eider, other, otherName, better, target, missing, note = '' }: Against): BenchRow {
  const ratio = other === undefined ? Number.NaN : better === 'more' ? eider / other : other / eider
  return {
    name: `${name}, ${unit}`,
    figures: {
      eider,
      other: other ?? missing ?? 'not installed',
      is: otherName,
      ratio: other === undefined ? '' : ratio,
      target: target ?? '',
      met: target === undefined || other === undefined ? '' : ratio >= target ? 'yes' : 'no',
      note,
    },
  }
}

/** Runs each step once a round; the order turns, so that none is always the one after the other. Undefined is no figure. */
export async function inTurns<Name extends string>(
  rounds: number,
  steps: Readonly<Partial<Record<Name, () => Promise<number | undefined>>>>,
): Promise<Partial<Record<Name, readonly number[]>>> {
  const names = Object.keys(steps) as Name[]
  const found: Partial<Record<Name, number[]>> = {}
  for (let round = 0; round < rounds; round++) {
    for (const name of round % 2 === 0 ? names : names.toReversed()) {
      const figure = await steps[name]?.()
      if (figure === undefined) continue
      const figures = (found[name] ??= [])
      figures.push(figure)
      process.stderr.write(`  ${name} ${Number(figure.toPrecision(4))}\n`)
    }
  }
  return found
}

/** Undefined of nothing. */
export function median(figures: readonly number[] | undefined): number | undefined {
  return quantile(figures, 0.5)
}

export function quantile(figures: readonly number[] | undefined, part: number): number | undefined {
  if (figures === undefined || figures.length === 0) return undefined
  const sorted = figures.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))]
}
