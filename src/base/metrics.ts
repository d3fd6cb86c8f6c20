/**
 * Metrics: one table of names, kinds, labels and help texts, over prom-client. `docs/operating/metrics.md` is generated
 * from the table; `--metrics HOST:PORT` serves the values. A hot path takes its child once, by `counter(name, ...)`,
 * and then only adds to it.
 */
import { Counter, Gauge, Histogram, Registry } from 'prom-client'

interface MetricRow {
  readonly kind: 'counter' | 'gauge' | 'histogram'
  readonly labels: readonly string[]
  readonly help: string
  /** Upper bounds of a histogram, in the unit of its name. */
  readonly buckets?: readonly number[]
}

const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

/** Every metric that Eider has. */
export const METRICS = {
  eider_s3_requests_total: {
    kind: 'counter',
    labels: ['operation', 'outcome'],
    help: 'S3 requests by operation (PutObject and others) and outcome (ok, or the code of the error).',
  },
  eider_s3_retries_total: { kind: 'counter', labels: ['operation'], help: 'S3 requests sent again after a failure.' },
  eider_s3_request_seconds: {
    kind: 'histogram',
    labels: ['operation'],
    help: 'From sending an S3 request to its response headers.',
    buckets: SECONDS,
  },
  eider_s3_sent_bytes_total: { kind: 'counter', labels: [], help: 'Body bytes sent to S3.' },
  eider_s3_received_bytes_total: { kind: 'counter', labels: [], help: 'Body bytes received from S3.' },
  eider_directory_names_hidden_total: {
    kind: 'counter',
    labels: [],
    help: 'Names that listings of a directory store left out because they are not UTF-8.',
  },
  eider_s3_hidden_keys_total: {
    kind: 'counter',
    labels: [],
    help: 'Listed S3 keys that can be no path, and are not shown.',
  },
  eider_s3_shadowed_keys_total: {
    kind: 'counter',
    labels: [],
    help: 'S3 objects found hidden, each once: their name is a directory, too.',
  },
  eider_fuse_requests_total: { kind: 'counter', labels: ['operation'], help: 'Requests of the kernel by operation.' },
  eider_fuse_errors_total: {
    kind: 'counter',
    labels: ['operation', 'errno'],
    help: 'Requests of the kernel answered with an error other than ENOENT.',
  },
  eider_fuse_read_bytes_total: { kind: 'counter', labels: [], help: 'Bytes given to the kernel by reads.' },
  eider_fuse_written_bytes_total: { kind: 'counter', labels: [], help: 'Bytes taken from the kernel by writes.' },
  eider_mount_open_files: { kind: 'gauge', labels: [], help: 'Open file handles of the mount.' },
  eider_mount_fetches_total: {
    kind: 'counter',
    labels: ['why'],
    help: 'Ranges that readers had asked of the store: demand (somebody waits for it) or ahead (of a sequential reader).',
  },
  eider_mount_prefetched_bytes_total: { kind: 'counter', labels: [], help: 'Bytes fetched ahead of readers.' },
  eider_mount_prefetch_wasted_bytes_total: {
    kind: 'counter',
    labels: [],
    help: 'Bytes fetched ahead that were given up before anybody read them.',
  },
  eider_mount_hedged_total: {
    kind: 'counter',
    labels: ['outcome'],
    help: 'Second requests for a range whose first one is slow: won (it came first), lost or failed.',
  },
  eider_memory_bytes: { kind: 'gauge', labels: [], help: 'Memory lent to buffers, under the bound of --memory.' },
  eider_mount_dirty_bytes: { kind: 'gauge', labels: [], help: 'Staged bytes that are not yet in the store.' },
  eider_mount_published_total: {
    kind: 'counter',
    labels: ['outcome'],
    help: 'Files published to the store by outcome: ok, failed, conflict (ours is kept under conflicts/), and conflicts that were settled as kept-both or replaced.',
  },
  eider_mount_journal_syncs_total: {
    kind: 'counter',
    labels: ['what'],
    help: 'Syncs of the journal of --write-back to its disk: of bytes and records (file), or of their names (directory).',
  },
  eider_mount_removals_total: {
    kind: 'counter',
    labels: ['outcome'],
    help: 'Removals that went in bulk, by outcome: ok, conflict, or failed (not taken, and tried again).',
  },
  eider_cache_hit_bytes_total: { kind: 'counter', labels: [], help: 'Bytes that were read from the disk cache.' },
  eider_cache_miss_bytes_total: {
    kind: 'counter',
    labels: [],
    help: 'Bytes that were looked for in the disk cache in vain.',
  },
  eider_cache_evicted_bytes_total: {
    kind: 'counter',
    labels: [],
    help: 'Bytes that left the disk cache to make room.',
  },
  eider_cache_bytes: { kind: 'gauge', labels: [], help: 'Bytes that the files of the disk cache take on their disk.' },
  eider_cache_corrupt_blocks_total: {
    kind: 'counter',
    labels: [],
    help: 'Blocks of the disk cache that did not fit their checksums or could not be read, and were dropped.',
  },
  eider_cache_keep_failures_total: {
    kind: 'counter',
    labels: ['why'],
    help: 'Ranges or files that the disk cache could not keep: room (nothing to evict), or disk (it failed or was full).',
  },
  eider_gateway_requests_total: {
    kind: 'counter',
    labels: ['operation', 'status'],
    help: 'Requests answered by the S3 gateway.',
  },
  eider_gateway_request_seconds: {
    kind: 'histogram',
    labels: ['operation'],
    help: 'From the head of a gateway request to the end of its response.',
    buckets: SECONDS,
  },
  eider_gateway_received_bytes_total: { kind: 'counter', labels: [], help: 'Body bytes received by the S3 gateway.' },
  eider_gateway_sent_bytes_total: { kind: 'counter', labels: [], help: 'Body bytes sent by the S3 gateway.' },
  eider_cluster_health: {
    kind: 'gauge',
    labels: [],
    help: 'How the cluster is, as its registry sees it: 2 all is there, 1 something is to be looked at, 0 some files cannot be read or written.',
  },
  eider_cluster_disks: {
    kind: 'gauge',
    labels: [],
    help: 'Disks that the registry knows and that are not terminated.',
  },
  eider_cluster_disks_writable: { kind: 'gauge', labels: [], help: 'Disks that take new blocks.' },
  eider_cluster_capacity_bytes: { kind: 'gauge', labels: [], help: 'What the disks of the cluster hold in all.' },
  eider_cluster_used_bytes: { kind: 'gauge', labels: [], help: 'Bytes of all blocks of the cluster.' },
  eider_cluster_free_bytes: { kind: 'gauge', labels: [], help: 'What the disks of the cluster have free.' },
  eider_gateway_connections: { kind: 'gauge', labels: [], help: 'Open connections of the S3 gateway.' },
} as const satisfies Record<string, MetricRow>

export type MetricName = keyof typeof METRICS
type NamesOf<K extends MetricRow['kind']> = {
  [N in MetricName]: (typeof METRICS)[N]['kind'] extends K ? N : never
}[MetricName]

/** What is served; metrics join it when they are first used. */
export const registry = new Registry()
const made = new Map<MetricName, Counter | Gauge | Histogram>()

function metric(name: MetricName): Counter | Gauge | Histogram {
  let found = made.get(name)
  if (found === undefined) {
    const row: MetricRow = METRICS[name]
    const options = { name, help: row.help, labelNames: row.labels, registers: [registry] }
    if (row.kind === 'counter') found = new Counter(options)
    else if (row.kind === 'gauge') found = new Gauge(options)
    else found = new Histogram({ ...options, buckets: [...(row.buckets ?? SECONDS)] })
    made.set(name, found)
  }
  return found
}

/** The counter with these label values (in the order of the table). */
export function counter(name: NamesOf<'counter'>, ...labels: string[]): { inc(by?: number): void } {
  const found = metric(name) as Counter
  return labels.length === 0 ? found : found.labels(...labels)
}

/** Every value of a counter, with its labels in the order of the table. */
export async function countsOf(name: NamesOf<'counter'>): Promise<readonly (readonly [number, ...labels: string[]])[]> {
  const { values } = await (metric(name) as Counter).get()
  return values.map(({ labels, value }) => [value, ...METRICS[name].labels.map((label) => String(labels[label]))])
}

/** The values of a counter, added up by its first label. */
export async function countsBy(name: NamesOf<'counter'>): Promise<ReadonlyMap<string, number>> {
  const counts = new Map<string, number>()
  for (const [value, label = ''] of await countsOf(name)) counts.set(label, (counts.get(label) ?? 0) + value)
  return counts
}

/** The gauge of that name. */
export function gauge(name: NamesOf<'gauge'>): {
  set(value: number): void
  inc(by?: number): void
  dec(by?: number): void
} {
  return metric(name) as Gauge
}

/** The histogram with these label values; observe in the unit of its name. */
export function histogram(name: NamesOf<'histogram'>, ...labels: string[]): { observe(value: number): void } {
  const found = metric(name) as Histogram
  return labels.length === 0 ? found : found.labels(...labels)
}
