/**
 * Every command, in the order of the overview. Their files are light: each imports what it works with only when it runs.
 */
import { blockService } from './block-service.ts'
import { cluster } from './cluster.ts'
import type { Command } from './command.ts'
import { coordinator } from './coordinator.ts'
import { doctor } from './doctor.ts'
import { FS_COMMANDS } from './fs.ts'
import { mount } from './mount.ts'
import { registry } from './registry.ts'
import { serveS3 } from './serve-s3.ts'
import { shard } from './shard.ts'
import { status } from './status.ts'
import { sync } from './sync.ts'
import { syncApply } from './sync-apply.ts'
import { syncStatus } from './sync-status.ts'
import { up } from './up.ts'
import { unmount } from './unmount.ts'

export const COMMANDS: readonly Command[] = [
  up,
  mount,
  unmount,
  status,
  sync,
  syncApply,
  syncStatus,
  serveS3,
  cluster,
  registry,
  shard,
  coordinator,
  blockService,
  ...FS_COMMANDS,
  doctor,
]
