/** What a benchmark reports, and how it is shown: a title, lines of figures, each against a peer or a limit of the same run. */

export interface BenchRow {
  readonly name: string
  /** By column; a number is shown with three digits, and in the unit of the column's head. */
  readonly figures: Readonly<Record<string, number | string>>
}

export interface BenchTable {
  readonly title: string
  readonly rows: readonly BenchRow[]
  /** What a reader must know to judge the figures. */
  readonly notes?: readonly string[]
}

/** The table in aligned lines. */
export function formatTable({ title, rows, notes = [] }: BenchTable): string {
  const columns = [...new Set(rows.flatMap(({ figures }) => Object.keys(figures)))]
  const grid = [
    ['', ...columns],
    ...rows.map(({ name, figures }) => [name, ...columns.map((column) => shown(figures[column]))]),
  ]
  const widths = ['', ...columns].map((_, index) => Math.max(...grid.map((cells) => cells[index]?.length ?? 0)))
  const lines = grid.map((cells) =>
    cells
      .map((cell, index) => (index === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[index] ?? 0)))
      .join('  ')
      .trimEnd(),
  )
  return [title, '', ...lines, ...(notes.length === 0 ? [] : ['', ...notes]), ''].join('\n')
}

function shown(figure: number | string | undefined): string {
  if (typeof figure !== 'number') return figure ?? ''
  if (Math.abs(figure) >= 100) return Math.round(figure).toLocaleString('en-US')
  return Number(figure.toPrecision(3)).toString()
}
