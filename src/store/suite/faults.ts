export const faultCases = []
