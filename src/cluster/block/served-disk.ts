/** What a block service knows of its disks and of itself beside what the disks know. */
import type { Address } from '#cluster/surroundings.ts'

import type { Disk } from './disk.ts'

/** Of four bytes at most, what the message of the registry has room for. */
const FAILURE_CHARACTERS_MAX = 256

/** A disk, and what others are to know of it. */
export interface ServedDisk {
  /** Closed with the server. */
  readonly disk: Disk
  /** Its storage class, 2 or more. */
  readonly class: number
  /** Its failure domain. */
  readonly domain: string
  /** Its directory, for people. */
  readonly path: string
  /** Of the file system that it lies on: disks with the same number share its free bytes. 0 where that is not known. */
  readonly fileSystem: number
}

/** Who it is to the registry. */
export interface RegistrationFacts {
  /** Random, kept in the data directory of the process. */
  readonly process: number
  /** At which others reach it. */
  readonly address: Address
  readonly location: string
}

/** Why a disk has failed, cut to what a message holds; empty while it has not. */
export function failureOf({ failure }: Disk): string {
  return failure?.message.slice(0, FAILURE_CHARACTERS_MAX) ?? ''
}
