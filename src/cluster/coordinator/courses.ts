/** The course of each request that the coordinator takes. */
import { directoryCourses } from './directory-courses.ts'
import { moveCourses } from './move-courses.ts'
import type { Course } from './course.ts'

const byKind = new Map<number, Course>(
  [...directoryCourses, ...moveCourses].map((course) => [course.message.kind, course]),
)

/** By the kind of the message. */
export function findCourse(kind: number): Course | undefined {
  return byKind.get(kind)
}
