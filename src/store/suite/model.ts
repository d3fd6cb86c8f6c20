export const modelCases = []
