"""Exercises: a stub to fill in, and a grader that runs what was filled in.

| module      | holds                                                                      |
|-------------|----------------------------------------------------------------------------|
| `catalogue` | the exercises as data: signature, formula, hint, tests, what is forbidden    |
| `stub`      | the file a student starts from                                               |
| `rules`     | what a file may import and use, read off its syntax tree                     |
| `child`     | the only code that runs a submission, in a process of its own                |
| `runner`    | starts that process, with limits, and reads what it answers                   |
| `judge`     | compares answers with the ladder's own, and gradients with differences        |
| `grader`    | puts the parts together to one verdict                                       |
"""
