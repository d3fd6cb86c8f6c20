/** Who answers for the registry, which has one address. */
import type { Address } from '#cluster/surroundings.ts'
import type { Target } from '#cluster/wire/caller.ts'

export function registryTarget(address: Address): Target {
  return { name: `the registry at ${address}`, address: () => address }
}
